"""The table of osjax/models/README.md against the folder."""

import re
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "osjax" / "models"
README = (MODELS / "README.md").read_text()


def named(text: str) -> set[str]:
    """Files that the table has, those of a folder with the folder before them."""
    names, row = set(), re.compile(r"^\| (.+?) \| (.+?) \|$", re.MULTILINE)
    for first, rest in row.findall(text):
        for name in re.findall(r"`([\w./]+)`", first):
            inside = re.findall(r"`(\w+\.py)`", rest) if name.endswith("/") else [""]
            names |= {name + part for part in inside}
    return names


def there() -> set[str]:
    files = {str(path.relative_to(MODELS)) for path in MODELS.rglob("*.py")}
    return {name for name in files if not name.endswith("/__init__.py")}


def test_the_table_names_every_file_and_no_other():
    assert named(README) == there()


@pytest.mark.parametrize("file", ["`flux_ae.py`", "`stream.py`"])
def test_a_table_without_a_file_is_noticed(file):
    assert named(README.replace(file, "")) != there()
