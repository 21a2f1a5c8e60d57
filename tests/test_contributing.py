"""CONTRIBUTING.md: the files that it names are there, and no file knows what it says that others alone know."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = {part.splitlines()[0]: part for part in re.split(r"^#+ ", PAGE, flags=re.MULTILINE)[1:]}


def named(text: str) -> set[str]:
    """Paths of files that a text has as `code`, but those that are still to be written."""
    paths = re.findall(r"`((?:osjax|configs|tests)/[\w/]+\.(?:py|md))`", text)
    return {path for path in paths if "NAME" not in path}


def knowing(pattern: str) -> set[str]:
    """Files of the package in which a pattern occurs."""
    files = sorted((ROOT / "osjax").rglob("*.py"))
    return {str(path.relative_to(ROOT)) for path in files if re.search(pattern, path.read_text())}


# What marks a file that has to be touched -> the section that names all of these.
KNOWN = {
    r"\.at_head|at_head:|(HEAD|TAIL)_IMAGE": "A condition mode",
    r"dpmpp_2m": "A solver",
    r"\bSCORES\b|\bJUDGES\b": "A score of clips",
    r"\bAUTOENCODERS = ": "An autoencoder",
    r"\bVIDEO_MODELS = ": "A family of video models",
    r"\"(fsdp|tensor|sequence)\"|class MeshKeys": "A mesh axis",
}


def test_every_file_that_is_named_is_there():
    paths = named(PAGE)
    assert len(paths) > 25 and sorted(path for path in paths if not (ROOT / path).is_file()) == []
    assert named("see `osjax/no/such.py` and `osjax/models/NAME.py`") == {"osjax/no/such.py"}


@pytest.mark.parametrize("pattern", KNOWN, ids=KNOWN.values())
def test_no_other_file_knows_what_a_list_names(pattern):
    there = knowing(pattern)
    assert there and there - named(SECTIONS[KNOWN[pattern]]) == set()


def test_a_file_that_is_left_out_of_a_list_is_noticed():
    pattern, title = next(iter(KNOWN.items()))
    shorter = SECTIONS[title].replace("`osjax/sampling/pipeline.py`", "")
    assert knowing(pattern) - named(shorter) == {"osjax/sampling/pipeline.py"}
