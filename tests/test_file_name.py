"""Names that a foreign file tells are taken only where a file beside it can have them."""

import pytest

from osjax import file_name
from osjax.__main__ import main


@pytest.mark.parametrize("name", ["a.safetensors", "é" * 127, "[", " ", "a..b", ".hidden", "x" * 255])
def test_names_that_files_can_have_are_plain_and_make_files(name, tmp_path):
    assert file_name.is_plain(name)
    (tmp_path / name).write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc/passwd", "a\\b", "a\0b", "x" * 256, "é" * 128, "\ud800" * 90]
)
def test_paths_and_names_that_no_file_has_are_not(name):
    assert not file_name.is_plain(name)


@pytest.mark.parametrize(
    "command", ["report {}", "data build {} out", "convert {} out --model=video", "sample --workdir={}"]
)
def test_a_path_that_is_too_long_is_one_line(command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(command.format("x" * 5000).split()) in (1, 2)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("osjax: ")]
    assert len(said) == 1 and "--traceback" not in said[0], said
