"""Captions on their way into tables and data sets: what cannot be read is dropped with a reason, never trained on."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from osjax.__main__ import main
from osjax.curation import tables
from osjax.data import clips, dataset

CAPTIONS = {
    "00000": "\ufeffa red bus".encode(),
    "00001": "a café at night".encode("utf-16"),
    "00002": "a café at night".encode("cp1252"),
    "00003": "lost \ufffd".encode(),
    "00004": b"NaN\n",
}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "clips"
    clips.write_clips(made, clips.specs(5, 0, clips.combinations()), 32, 8, 8)
    for name, data in CAPTIONS.items():
        (made / f"{name}.txt").write_bytes(data)
    return made


def test_captions_beside_videos_are_read_in_unicode_and_others_say_why_they_are_not(folder, caplog):
    rows = list(tables.rows(folder))
    assert [row["text"] for row in rows] == ["a red bus", "a café at night", "", "", ""]
    assert [bool(row.get("text_reason")) for row in rows] == [False, False, True, True, False]
    assert "00002.txt line 1 is neither UTF-8 nor UTF-16" in caplog.text and "00004" not in caplog.text


def test_a_data_set_holds_no_caption_that_was_not_read(folder, tmp_path, capsys):
    assert main(["data", "build", str(folder), str(tmp_path / "out")]) == 0
    made = capsys.readouterr().out.split("data set: ")[1].strip()
    assert [record["text"] for record in dataset.open_source(made)] == [b"a red bus", "a café at night".encode()]
    reasons = [row["reason"] for row in tables.read(tmp_path / "out" / "dropped.parquet")]
    for reason, words in zip(reasons, ("neither UTF-8", "lost characters", "has no caption"), strict=True):
        assert words in reason
    assert reasons[2].endswith("has no caption")  # its file says nothing, which needs no further reason


def test_a_mark_that_one_step_left_on_a_caption_goes_through_the_next(folder, tmp_path):
    for table in (tmp_path / "one.parquet", tmp_path / "one.csv"):
        tables.write(table, list(tables.rows(folder)))
        rows = list(tables.rows(table, folder))
        assert [row["text"] for row in rows] == ["a red bus", "a café at night", "", "", ""]
        assert "neither UTF-8" in rows[2]["text_reason"] and not rows[0].get("text_reason")


def test_a_caption_that_came_later_needs_no_reason_any_more(folder, tmp_path):
    rows = [{**row, "text": row["text"] or "a bus of a server"} for row in tables.rows(folder)]
    assert rows[2]["text_reason"]
    tables.write(tmp_path / "t.parquet", rows)
    again = list(tables.rows(tmp_path / "t.parquet", folder))
    assert all(row["text"] and "text_reason" not in row for row in again)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_empty_cells_of_tables_are_no_captions(tmp_path, suffix):
    texts = ["nan", None, "None", "null", "", " \t", "a bus", "nanny", "x\ufffd"]
    rows = [{"path": f"/clips/{n}.mp4", "text": text} for n, text in enumerate(texts)]
    tables.write(tmp_path / f"t.{suffix}", rows)
    found = list(tables.rows(tmp_path / f"t.{suffix}", "/clips"))
    assert [row["text"] for row in found] == [""] * 6 + ["a bus", "nanny", ""]
    assert "/clips/8.mp4" in found[8]["text_reason"] and not found[0].get("text_reason")


def test_numbers_in_place_of_captions_are_refused_but_a_column_of_nothing_is_not(tmp_path):
    pq.write_table(pa.table({"path": ["/clips/a.mp4"], "text": pa.nulls(1)}), tmp_path / "t.parquet")
    assert [row["text"] for row in tables.rows(tmp_path / "t.parquet", "/clips")] == [""]
    pq.write_table(pa.table({"path": ["/clips/a.mp4"], "text": pa.array([12])}), tmp_path / "t.parquet")
    with pytest.raises(tables.UserError, match="column text is of type int64"):
        list(tables.rows(tmp_path / "t.parquet", "/clips"))


def test_a_folder_gives_videos_of_every_container_and_tells_captioned_files_that_are_none(tmp_path, caplog):
    for name in ("a.mp4", "b.TS", "c.vob", "d.mpg", "e.h264", "f.xyz", "g.jpg", "notes.dat"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("a.txt", "f.txt", "read me.txt"):
        (tmp_path / name).write_text("a bus")
    assert [path.name for path in tables.videos(tmp_path)] == ["a.mp4", "b.TS", "c.vob", "d.mpg", "e.h264"]
    assert "1 files with a caption have no name of a video" in caplog.text and "f.xyz" in caplog.text
