"""What a type checker tells those who use osjax: that it has types, and which calls are wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

USER = Path(__file__).parent / "user"


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, dict[int, set[str]]]:
    """{file: {line: rules that pyright finds broken}}, from a folder of the user's own, with pyright's own settings."""
    folder = tmp_path_factory.mktemp("user")
    for path in USER.glob("[rw]*.py"):
        (folder / path.name).write_text(path.read_text())
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(USER.parents[1])]}))
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
    assert told["wrong.py"] == marked and len(marked) == 12


def test_a_checker_is_told_that_the_package_has_types():
    import osjax

    assert (Path(osjax.__file__).parent / "py.typed").exists()
