"""Tables of clips in CSV and Parquet, and tables that cannot be used."""

import resource

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from osjax.curation import tables
from osjax.data import table
from osjax.errors import UserError

ROW = {
    "path": "a.mp4",
    "text": "a cat, asleep",
    "num_frames": 8,
    "height": 64,
    "width": 96,
    "aspect_ratio": 0.667,
    "resolution": 6144,
    "fps": 8.0,
}


def _parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_csv_and_parquet_give_the_same_rows(tmp_path):
    table.write_csv(tmp_path / "t.csv", [ROW])
    _parquet(tmp_path / "t.parquet", [ROW])
    rows = table.read(tmp_path / "t.csv")
    assert rows == table.read(tmp_path / "t.parquet") == [{**ROW, "path": str(tmp_path / "a.mp4")}]
    assert type(rows[0]["num_frames"]) is int


@pytest.mark.parametrize("names", ["path,prompt", "file_name,caption", "video,text"])
def test_what_other_tools_call_path_and_text_is_read_as_these(names, tmp_path):
    (tmp_path / "t.csv").write_text(f"{names}\n/a.mp4,a cat\n")
    assert table.read(tmp_path / "t.csv") == [{"path": "/a.mp4", "text": "a cat"}]
    theirs = dict(zip(names.split(","), ["/a.mp4", "a cat"], strict=True))
    pq.write_table(pa.Table.from_pylist([theirs]), tmp_path / "t.parquet")
    (row,) = tables.rows(tmp_path / "t.parquet", "/")
    assert (row["path"], row["text"]) == ("/a.mp4", "a cat")


def test_absolute_paths_stay_and_relative_ones_start_at_the_table(tmp_path):
    table.write_csv(tmp_path / "t.csv", [ROW, {**ROW, "path": "/clips/b.mp4"}])
    assert [r["path"] for r in table.read(tmp_path / "t.csv")] == [str(tmp_path / "a.mp4"), "/clips/b.mp4"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    (tmp_path / "t.csv").write_bytes("\ufeffpath,text\n/a.mp4,a cat\n".encode())
    assert table.read(tmp_path / "t.csv") == [{"path": "/a.mp4", "text": "a cat"}]


def test_rows_with_different_columns_are_written_whole(tmp_path):
    table.write_csv(tmp_path / "t.csv", [ROW, {**ROW, "reason": "too short"}])
    assert [row["reason"] for row in table.read(tmp_path / "t.csv")] == ["", "too short"]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("gone.csv", None, "does not exist"),
        ("t.json", "{}", "neither .csv nor .parquet"),
        ("t.csv", "path,text\n", "no rows"),
        ("t.csv", "", "no rows"),
        ("t.csv", "file,caption\na.mp4,a cat\n", "lacks the column path; it has file, caption"),
        ("t.csv", "path,captoin\na.mp4,a cat\n", "lacks the column text; .* did you mean caption by captoin"),
        (
            "t.csv",
            "path,prompt,caption\na.mp4,a,b\n",
            "has the columns caption and prompt, either of which may be text",
        ),
        ("t.csv", "path,fps\na.mp4,8\n", "lacks the column text; it has path, fps"),
        ("t.csv", "path,text,height\na.mp4,cat,tall\n", "line 2: height is 'tall'"),
        ("t.csv", b"path,text\na.mp4,\xff\xfe\n", "UTF-8"),
        ("t.csv", "path,text,height\na.mp4,cat,inf\n", "line 2: height is 'inf'"),
        ("t.csv", "path,text\na.mp4,a red cat, asleep\n", "line 2: more values than columns"),
        ("t.csv", "file,text\na.mp4,a red cat, asleep\n", "line 2: more values than columns"),
        ("t.parquet", "path,text\na.mp4,cat\n", "not readable Parquet"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as error:
        table.read(tmp_path / name)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_a_parquet_row_without_a_path_says_which(tmp_path):
    _parquet(tmp_path / "t.parquet", [ROW, {**ROW, "path": None}])
    with pytest.raises(UserError, match="line 3: path is missing"):
        table.read(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    "content, line",
    [
        ('path,text\na.mp4,"unclosed\nb.mp4,two\nc.mp4,three\n', 2),
        ('path,text\na.mp4,one\n\nb.mp4,"two\nc.mp4,three\n', 4),
        ('path,text\na.mp4,"one\nb.mp4,"two"\n', 2),
        ('path,text\na.mp4,"two\nlines"\nb.mp4,"x"y\n', 4),
        ('path,text\na.mp4,"' + "b.mp4,two\n" * 20000, 2),
    ],
    ids=["to the end", "after an empty line", "to the next quote", "after text of two lines", "over 131072 characters"],
)
def test_a_quote_that_is_left_open_is_an_error_at_its_line(tmp_path, content, line):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UserError, match=f"line {line}: a quote opens and is not closed") as error:
        table.read(tmp_path / "t.csv")
    assert len(str(error.value)) < 400


def test_quotes_that_close_hold_commas_quotes_and_lines(tmp_path):
    (tmp_path / "t.csv").write_text('path,text,height\n/a.mp4,"a ""red"", big\nbus",4\n/b.mp4,two,tall\n')
    with pytest.raises(UserError, match="line 4: height is 'tall'"):
        table.read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text('path,text\n/a.mp4,"a ""red"", big\nbus"\n')
    assert table.read(tmp_path / "t.csv") == [{"path": "/a.mp4", "text": 'a "red", big\nbus'}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_csv_of_a_spreadsheet_in_utf16_is_read(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes("path,text\r\n/a.mp4,un café\r\n".encode(encoding))
    assert table.read(tmp_path / "t.csv") == [{"path": "/a.mp4", "text": "un café"}]


@pytest.mark.parametrize(
    "column, value, kind",
    [
        ("text", 12, "int64"),
        ("text", ["one", "two"], "list<"),
        ("text", b"secret bytes", "binary"),
        ("text", 1.5, "double"),
        ("text", {"en": "secret"}, "struct<"),
        ("path", 7, "int64"),
        ("height", [64], "list<"),
        ("motion", {"a": 1.0}, "struct<"),
    ],
)
def test_a_parquet_column_of_a_wrong_type_is_named_with_its_type(tmp_path, column, value, kind):
    _parquet(tmp_path / "t.parquet", [{**ROW, column: value}])
    for read in (table.read, lambda path: list(tables.rows(path))):
        with pytest.raises(UserError, match=f"column {column} is of type {kind}") as error:
            read(tmp_path / "t.parquet")
        assert "\n" not in str(error.value) and "secret" not in str(error.value)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_every_parquet_type_of_text_is_read(tmp_path, kind):
    rows = pa.table({"path": pa.array(["/a.mp4"]).cast(kind), "text": pa.array(["a cat"]).cast(kind)})
    pq.write_table(rows, tmp_path / "t.parquet")
    assert table.read(tmp_path / "t.parquet") == [{"path": "/a.mp4", "text": "a cat"}]
    pq.write_table(pa.table({"path": ["/a.mp4"], "text": pa.nulls(1)}), tmp_path / "t.parquet")
    assert table.read(tmp_path / "t.parquet") == [{"path": "/a.mp4", "text": None}]


def test_a_small_parquet_file_that_stands_for_gigabytes_is_refused_before_it_is_read(tmp_path):
    rows = pa.table({"path": ["a.mp4"] * 500, "text": ["x" * 100_000] * 500})
    with pq.ParquetWriter(tmp_path / "bomb.parquet", rows.schema, compression="zstd") as writer:
        for _ in range(40):  # 2 GB
            writer.write_table(rows)
    assert (tmp_path / "bomb.parquet").stat().st_size < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="holds more than 1073741824 bytes"):
        table.read(tmp_path / "bomb.parquet")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    pq.write_table(rows[:2], tmp_path / "sound.parquet")
    assert len(table.read(tmp_path / "sound.parquet")) == 2
