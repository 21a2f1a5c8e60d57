"""Files with seeded damages through the command line: it ends with 0, 1 or 2 and one line, whatever was in them.

As many damages of each kind everywhere, so that a verdict does not depend on a machine's speed: SECONDS only shorten it
where a machine is very slow. `python -m tests.measures.hostile` tries more. Native crashes would end the process of the
test, so they would be seen, too.
"""

import json
import random
import shutil
import time
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from osjax.__main__ import main
from osjax.curation import tables
from osjax.data import clips, dataset
from osjax.errors import UserError
from tests.cli.test_convert import CONFIG, fields
from tests.damage import damaged
from tests.models.test_mmdit import tensors

SECONDS = 60.0  # of each kind, at most
LEAST = 3  # damages of each kind that are tried however slow the machine is


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder of sound files of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    clips.write_clips(folder / "videos", clips.specs(2, 0, clips.combinations()), 32, 8, 8)
    (folder / "videos" / "clips.csv").unlink()
    rows = [{"path": f"videos/0000{n}.mp4", "text": f"clip {n}", "height": 32, "fps": 8.0} for n in range(2)]
    for suffix in ("csv", "parquet"):
        tables.write(folder / f"t.{suffix}", rows)
    for n in range(2):
        (folder / "videos" / f"0000{n}.txt").write_text(f"clip {n}")
    assert main(["data", "build", str(folder / "videos"), str(folder / "set")]) == 0
    (folder / "run").mkdir()
    lines = [{"stage": "a", "step": n, "loss": 1.0, "steps_per_s": 2.0, "skipped": 0} for n in range(6)]
    (folder / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    values = {"video": fields("mmdit_a"), "flux": fields("mmdit_b"), "ae": fields("dcae_tiny")}
    (folder / "m.py").write_text(CONFIG.format(**{name: repr(value) for name, value in values.items()}))
    save_file({name: x[:0] if x.ndim > 1 else x for name, x in tensors("mmdit_a").items()}, folder / "w.safetensors")
    return folder


# What is damaged, below the folder of sound files, what is then done with it, and how many damages are tried.
KINDS = {
    "csv": ("t.csv", ["data", "build", "{folder}/t.csv", "{folder}/out"], 8),
    "parquet": ("t.parquet", ["data", "build", "{folder}/t.parquet", "{folder}/out"], 8),
    "video": ("videos/00000.mp4", ["data", "build", "{folder}/videos", "{folder}/out"], 8),
    "caption": ("videos/00000.txt", ["data", "build", "{folder}/videos", "{folder}/out"], 5),
    "metrics": ("run/metrics.jsonl", ["report", "{folder}/run"], 10),
    "weights": ("w.safetensors", ["convert", "--config={folder}/m.py", "{folder}/w.safetensors", "{folder}/out"], 60),
}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_the_command_line_with_a_status_and_one_line(kind, sound, tmp_path, capfd):
    name, words, count = KINDS[kind]
    words = [*words, "--model=video"] if words[0] == "convert" else words
    data, statuses, end = (sound / name).read_bytes(), [], time.monotonic() + SECONDS
    while len(statuses) < count and (time.monotonic() < end or len(statuses) < LEAST):
        folder = Path(shutil.copytree(sound, tmp_path / str(len(statuses))))
        (folder / name).write_bytes(damaged(data, random.Random(f"{kind} {len(statuses)}")))
        statuses.append(main([word.format(folder=folder) for word in words]))
        said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("osjax: ")]
        assert statuses[-1] in (0, 1, 2) and len(said) == (statuses[-1] != 0), said
        assert not any("--traceback" in line for line in said), (len(statuses) - 1, said)
        shutil.rmtree(folder)


def test_damaged_tables_are_rows_or_one_line(sound, tmp_path):
    data = (sound / "t.csv").read_bytes()
    for number in range(400):
        (tmp_path / "t.csv").write_bytes(damaged(data, random.Random(f"rows {number}")))
        try:
            rows = list(tables.rows(tmp_path / "t.csv"))
            assert all(isinstance(row["path"], str) and isinstance(row["text"], str) for row in rows)
        except UserError as error:
            assert "\n" not in str(error)


def test_damaged_data_sets_are_opened_or_refused_in_one_line(sound, tmp_path):
    built = next((sound / "set").rglob("dataset_info.json")).parent
    tried, end = 0, time.monotonic() + SECONDS
    while tried < 200 and (time.monotonic() < end or tried < LEAST):
        folder, rng = Path(shutil.copytree(built, tmp_path / str(tried))), random.Random(f"set {tried}")
        tried += 1
        path = rng.choice(sorted(folder.iterdir()))
        path.write_bytes(damaged(path.read_bytes(), rng))
        if rng.random() < 0.5:  # as of another tool, which writes none
            (folder / "fingerprints.json").unlink()
        try:
            source = dataset.open_source(folder)
            source.index()
            for number in range(len(source)):
                source[number]
        except UserError as error:
            assert "\n" not in str(error)
        shutil.rmtree(folder)
