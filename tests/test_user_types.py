"""What a type checker tells those who use osjax: that it has types, and which calls are wrong."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from osjax import models

ROOT = Path(__file__).parents[1]
USER = Path(__file__).parent / "user"


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, dict[int, set[str]]]:
    """{file: {line: rules that pyright finds broken}}, from a folder of the user's own, with pyright's own settings."""
    folder = tmp_path_factory.mktemp("user")
    for path in USER.glob("[rw]*.py"):
        (folder / path.name).write_text(path.read_text())
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    broken: dict[str, dict[int, set[str]]] = {"right.py": {}, "wrong.py": {}}
    for one in json.loads(ran.stdout)["generalDiagnostics"]:
        lines = broken[Path(one["file"]).name]
        lines.setdefault(one["range"]["start"]["line"] + 1, set()).add(one["rule"])
    return broken


def test_a_script_that_uses_the_public_names_as_documented_has_types(told):
    assert told["right.py"] == {}


def test_every_wrong_call_is_told_at_its_line(told):
    lines = enumerate((USER / "wrong.py").read_text().splitlines(), start=1)
    marked = {number: {rule[1]} for number, line in lines if (rule := re.search(r"# (report\w+)$", line))}
    assert told["wrong.py"] == marked and len(marked) == 15


def test_a_checker_is_told_that_the_package_has_types():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert (ROOT / "osjax" / "py.typed").exists()
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["osjax"]
    missing = [path for path in project["tool"]["pyright"]["include"] if not (ROOT / path).exists()]
    assert missing == []  # pyright itself only warns of a path that is not there


def test_the_class_of_every_family_is_told():
    source = (ROOT / "osjax" / "models" / "__init__.py").read_text()
    told = dict(re.findall(r'^def config\(family: Literal\["(\w+)"\].*-> "(\w+)"', source, re.MULTILINE))
    assert told == {family: models.config_class(family).__name__ for family in models._FAMILIES}
