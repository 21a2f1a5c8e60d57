"""docs/change_one_part.md: each diff applies to this tree as it stands, and its test passes with it alone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "change_one_part.md"
DIFFS = dict(re.findall(r"^## (.+?)\n.*?```diff\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
TESTS = {name: re.findall(r"^\+\+\+ b/(tests/\S+)", text, re.MULTILINE) for name, text in DIFFS.items()}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of what the tests of the diffs need."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("osjax", "configs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "goldens"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def apply(folder: Path, diff: str, *more: str) -> None:
    """Apply a diff in a folder that is in no repository. more: options of git apply."""
    alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    subprocess.run(["git", "apply", *more, "-"], input=diff, text=True, cwd=folder, env=alone, check=True)


def run(folder: Path, tests: list[str]) -> str:
    """What pytest says at the end of tests in a folder. tests: files there."""
    argv = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", *tests]
    told = subprocess.run(
        argv, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    return told.stdout.splitlines()[-1]


def test_a_block_a_loss_and_a_mode_are_changed_in_less_than_thirty_lines_each():
    assert list(DIFFS) == ["A new block", "A new loss", "A new condition mode"]
    assert all(len(text.splitlines()) < 30 and len(TESTS[name]) == 1 for name, text in DIFFS.items())


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_each_diff_applies_and_its_test_passes_with_it_and_not_without(copy):
    tests = [path for paths in TESTS.values() for path in paths]
    for diff in DIFFS.values():
        apply(copy, diff, "--include=tests/*")
    assert run(copy, tests).startswith("3 failed in ")
    for diff in DIFFS.values():
        apply(copy, diff, "--exclude=tests/*")
    assert run(copy, tests).startswith("3 passed in ")
