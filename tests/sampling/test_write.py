"""Files of samples: names that stay in their folder, and writes that are whole or not at all."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osjax.data.video import decode
from osjax.errors import UserError
from osjax.sampling import names
from osjax.sampling.write import Output, write_samples

NASTY = [
    "../../etc/passwd",
    "/absolute",
    "a" * 500,
    "",
    "naïve\nprompt\x00",
    "..",
    "~/x",
    "C:\\x",
    "con",
    ".\u202e/",
    "-rf",
]
texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=300))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(names.LAYOUTS), texts, st.one_of(st.none(), texts))
def test_no_prompt_or_name_leads_out_of_the_output_folder(tmp_path, layout, prompt, name):
    folder = tmp_path / "deep" / "out"
    try:
        stem = names.stem(layout, 3, prompt, name, 0, 1)
    except UserError as error:
        assert "\n" not in str(error)
        return
    output = Output(folder, layout)
    assert output.media(stem, 8).parent == folder and output.media(stem, 8).resolve().parent == folder.resolve()
    assert output.json(stem).resolve().parent == output.settings_folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    output.media(stem, 8).write_bytes(b"")  # the file system takes the name, too
    output.media(stem, 8).unlink()


def test_names_in_both_layouts():
    assert names.stem("plain", 3, "a red circle", None, 0, 1) == "0003-a-red-circle"
    assert names.stem("plain", 3, "a red circle", None, 1, 2) == "0003-a-red-circle-1"
    assert names.stem("plain", 3, "a", "my name/../v1.2", 0, 1) == "my-name-..-v1.2"
    assert names.stem("vbench", 3, "A house.", None, 4, 5) == "A house.-4"
    assert names.stem("vbench", 3, "a long, rewritten prompt / with more", "A house.", 4, 5) == "A house.-4"
    for layout, prompt, name, says in (
        ("vbench", "a/b", None, "path separator"),
        ("vbench", "a\nb", None, "control character"),
        ("vbench", "\ud800", None, "not valid text"),
        ("vbench", "é" * 120, None, "longer than"),
        ("plain", "a", "../..", "no letter or digit"),
        ("flat", "a", None, "unknown layout"),
    ):
        with pytest.raises(UserError, match=says):
            names.stem(layout, 0, prompt, name, 0, 1)
    with pytest.raises(UserError, match="two samples would be written"):
        names.distinct(["a-0", "b", "a-0"])


def test_names_that_differ_in_case_are_two_where_the_file_system_says_so(tmp_path):
    stems = ["a-0", "b", "A-0"]
    assert names.distinct(stems, case=True) == stems
    with pytest.raises(UserError, match="'A-0' and 'a-0' are one file here"):
        names.distinct(stems, case=False)
    (tmp_path / "a-0").write_text("a")
    (tmp_path / "A-0").write_text("A")
    assert names.tells_case_apart(tmp_path / "not" / "there" / "yet") == ((tmp_path / "a-0").read_text() == "a")
    assert len(list(tmp_path.iterdir())) in (1, 2)  # the look left nothing behind


def test_samples_of_the_same_prompt_are_all_written(tmp_path):
    videos = np.stack([np.full((2, 16, 16, 3), v, np.uint8) for v in (0, 250, 30)])
    paths = write_samples(tmp_path / "out", videos, ["a", "a", "../b"], {"steps": 1}, fps=8)
    assert len({p.name for p in paths}) == 3 and all(p.parent == tmp_path / "out" for p in paths)
    assert [round(decode(p).mean()) // 20 for p in paths] == [0, 12, 1]
    assert json.loads(paths[2].with_suffix(".json").read_text()) == {"prompt": "../b", "index": 2, "steps": 1}


def test_a_sample_counts_when_both_files_are_there_and_say_the_same(tmp_path):
    output, says = Output(tmp_path), {"prompt": "\ud800é", "steps": 3, "shift": 1.5, "refs": ("a",)}
    assert not output.finished("x", 2, says)
    output.write("x", np.zeros((2, 16, 16, 3), np.uint8), says, 8)
    assert output.finished("x", 2, says) and not output.finished("x", 1, says)
    with pytest.raises(UserError, match="made with another steps"):
        output.finished("x", 2, {**says, "steps": 4})
    assert output.finished("x", 2, {**says, "solver": "euler"})  # as all were made before there were others
    with pytest.raises(UserError, match="made with another solver"):
        output.finished("x", 2, {**says, "solver": "heun"})
    output.json("x").write_text("half a fi")
    with pytest.raises(UserError, match="no JSON of osjax"):
        output.finished("x", 2, says)
    output.json("x").unlink()
    assert not output.finished("x", 2, says)


def test_quality_is_the_original_s_and_can_be_asked_for(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (4, 32, 32, 3), np.uint8)
    sizes = []
    for crf in (23, 0, 40):
        output = Output(tmp_path / str(crf), crf=crf)
        sizes.append(output.write("x", noise, {}, 8).stat().st_size)
    assert sizes[2] < sizes[0] < sizes[1] and Output(tmp_path).crf == 23
    assert Output(tmp_path / "plain").write("x", noise, {}, 8).stat().st_size == sizes[0]
    with pytest.raises(UserError, match="crf is 52"):
        Output(tmp_path, crf=52)
