"""Tables of prompts and the files that they name."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from osjax.data import video
from osjax.errors import UserError
from osjax.sampling import prompts, references


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(np.full((20, 40, 3), 100, np.uint8)).save(tmp_path / "still.png")
    moving = np.arange(0, 250, 50)[:, None, None, None] * np.ones((1, 16, 16, 3))
    video.write_mp4(tmp_path / "clip.mp4", moving.astype(np.uint8), 8, crf=0)
    return tmp_path


def test_the_three_formats_hold_the_same_rows(folder):
    (folder / "a.csv").write_text('\ufefftext,ref,neg,name,seed\n"one, two",still.png; clip.mp4,bad,n,7\nthree,,,,\n')
    rows = [
        {"text": "one, two", "ref": ["still.png", "clip.mp4"], "neg": "bad", "name": "n", "seed": 7},
        {"text": "three"},
    ]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    first = prompts.Request("one, two", (folder / "still.png", folder / "clip.mp4"), "bad", "n", 7, suite="a")
    got = prompts.read(folder / "a.jsonl")
    assert got == [first, prompts.Request("three", suite="a")]
    assert prompts.read(folder / "a.csv") == [first, prompts.Request("three", neg="", suite="a")]
    (folder / "a.txt").write_text("one, two\n\n  three \u2028 four\r\n")
    assert [r.text for r in prompts.read(folder / "a.txt")] == ["one, two", "three \u2028 four"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "text,refs\na,b\n", "line 2: unknown column 'refs'; did you mean ref?"),
        ("a.csv", "text,seed\na,x\n", "line 2: seed is 'x'"),
        ("a.csv", "text,seed\na,-1\n", "line 2: seed is -1"),
        ("a.csv", "text\na,b\n", "line 2: more values than columns"),
        ("a.csv", 'text\n"a\n', "line 2: a quote opens and is not closed"),
        ("a.csv", "text,name\n,b\n", "line 2: text is missing"),
        ("a.csv", "text\n", "are empty"),
        ("a.csv", "text,ref\na,no.png\n", "line 2: reference no.png does not exist"),
        ("a.csv", "text,ref\na,a.csv\n", "is neither an image"),
        ("a.csv", "text,ref\na," + "x" * 5000 + "\n", "does not exist"),
        ("a.jsonl", "[1]\n", "line 1 is no object"),
        ("a.jsonl", '{"text": "a"}\n{"text"\n', "line 2 is no JSON"),
        ("a.jsonl", '{"text": 3}\n', "line 1: text is 3, not text"),
        ("a.jsonl", '{"text": "a", "seed": 1.5}\n', "seed is 1.5"),
        ("a.txt", "\n \n", "are empty"),
        ("a.yaml", "text: a", "are neither .txt nor .csv nor .jsonl"),
    ],
)
def test_a_bad_table_names_the_line_and_what_to_do(folder, name, content, says):
    (folder / name).write_text(content)
    with pytest.raises(UserError) as error:
        prompts.read(folder / name)
    assert says in str(error.value)


def test_tables_that_are_missing_or_not_text_are_refused(folder):
    with pytest.raises(UserError, match="do not exist"):
        prompts.read(folder / "no.csv")
    (folder / "b.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UserError, match="begins with the mark of utf-16-le"):
        prompts.read(folder / "b.txt")


CLIPS = (references.modes.HEAD_CLIP, references.modes.TAIL_CLIP)


def test_a_gif_that_moves_is_a_clip_and_one_that_does_not_a_picture(tmp_path):
    frames = [Image.new("RGB", (16, 16), (40 * n, 0, 0)) for n in range(3)]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / "stays.gif")
    assert references.read(tmp_path / "moves.gif").shape == (3, 16, 16, 3)
    assert references.read(tmp_path / "stays.gif").shape == (1, 16, 16, 3)


def test_references_are_brought_to_size_and_cut_at_their_end_of_the_clip(folder):
    still, clip = references.load(f"{folder / 'still.png'};{folder / 'clip.mp4'}", 16, 16)
    assert still.shape == (1, 16, 16, 3) and still.dtype == np.uint8 and clip.shape == (5, 16, 16, 3)
    head, tail = references.modes.HEAD_IMAGE, references.modes.TAIL_IMAGE
    assert (
        references.cut(head, (clip, still), causal=False).mean() < 3 < 190 < references.cut(tail, (clip,), False).mean()
    )
    a, b = (np.full((33, 4, 4, 3), value, np.uint8) for value in (1, 2))
    clips = {one.name: references.cut(one, (a, b), causal=False)[0, 0, 0, 0] for one in (head, tail, *CLIPS)}
    assert clips == {"head_image": 1, "tail_image": 2, "head_clip": 1, "tail_clip": 1}  # clips, from the first file
    with pytest.raises(UserError, match="needs 33 frames, a reference has 5"):
        references.cut(references.modes.HEAD_CLIP, (clip,), causal=True)
    wide = references.load(np.linspace(-1, 1, 3 * 8 * 12 * 3).reshape(3, 8, 12, 3), 4, 4)[0]
    assert wide.shape == (3, 4, 4, 3) and -1 <= wide.min() < wide.max() <= 1
    scaled = references.load(np.full((2, 8, 8, 3), 255, np.uint8), 4, 4)[0]
    np.testing.assert_allclose(scaled, 1, atol=1e-6)  # clips stay as fine as they were resampled, in [-1, 1]


def test_files_that_are_no_pictures_are_refused(folder):
    (folder / "fake.png").write_text("no image")
    with pytest.raises(UserError, match="no readable image"):
        references.read(folder / "fake.png")
    (folder / "fake.mp4").write_text("no video")
    with pytest.raises(UserError, match="cannot be decoded"):
        references.read(folder / "fake.mp4")
    with pytest.raises(UserError, match="has shape"):
        references.load(np.zeros((4, 4)), 4, 4)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_prompts_are_read_in_every_unicode_encoding(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("un café\nзима\n".encode(encoding))
    assert [row.text for row in prompts.read(tmp_path / "a.txt")] == ["un café", "зима"]
    (tmp_path / "a.txt").write_bytes("un café".encode("cp1252"))
    with pytest.raises(UserError, match="a.txt line 1 is neither UTF-8"):
        prompts.read(tmp_path / "a.txt")


@pytest.mark.parametrize("cell", ["nan", "None", " ", "null"])
def test_a_row_whose_text_says_nothing_is_refused_by_its_line(tmp_path, cell):
    (tmp_path / "a.csv").write_text(f'text,neg\na bus,\n"two\nlines",\n{cell},none\n')
    with pytest.raises(UserError, match="line 5: text is missing"):
        prompts.read(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text('{"text": "a", "neg": NaN}\n{"text": NaN}\n')
    with pytest.raises(UserError, match="line 2: text is missing"):
        prompts.read(tmp_path / "a.jsonl")


def test_equal_rows_are_one_and_take_the_most_samples(tmp_path):
    (tmp_path / "one.csv").write_text("text,seed\na,1\nb,1\na,1\na,2\n")
    (tmp_path / "two.csv").write_text("text,seed,suite\na,1,\na,1,one\n")
    rows = prompts.read(tmp_path)
    assert [row.suite for row in rows] == ["one"] * 4 + ["two", "one"]
    flat = prompts.merged(rows, by_suite=False)
    assert [(row.text, row.seed) for row in flat] == [("a", 1), ("b", 1), ("a", 2)]
    assert len(prompts.merged(rows, by_suite=True)) == 4
    more = [dataclasses.replace(row, samples=25 if row.suite == "two" else None) for row in rows]
    assert [row.samples for row in prompts.merged(more, by_suite=False)] == [25, None, None]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no prompts"):
        prompts.read(tmp_path / "empty")


def test_references_of_a_table_lie_beside_it_or_where_the_command_runs(tmp_path, monkeypatch):
    table, elsewhere = tmp_path / "table", tmp_path / "elsewhere"
    for made in (table, elsewhere):
        made.mkdir()
        Image.new("RGB", (8, 8)).save(made / "a.png")
    (table / "linked.png").symlink_to(elsewhere / "a.png")
    monkeypatch.chdir(table)
    for name in (elsewhere / "a.png", "../elsewhere/a.png", "linked.png"):
        (table / "p.csv").write_text(f"text,ref\na,{name}\n")
        with pytest.raises(UserError, match="line 2: reference .* lies elsewhere"):
            prompts.read(table / "p.csv")
    monkeypatch.chdir(tmp_path)
    assert prompts.read(table / "p.csv")[0].ref == (table / "linked.png",)
