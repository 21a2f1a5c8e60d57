"""The pages: files, modules, verbs, flags and config keys that they name exist."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from osjax.__main__ import VERBS, options_of
from osjax.parts.config import dotted_keys, load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "launch" / "README.md", ROOT / "osjax" / "models" / "README.md"]
pages = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def code(text: str) -> str:
    """What a page has as code that is no Python, a command a line."""
    pieces = re.findall(
        r"```\w*\n(.*?)```|`([^`]+)`", re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL), re.DOTALL
    )
    return "\n".join(block or " ".join(inline.split()) for block, inline in pieces).replace("\\\n", " ")


def lost_files(text: str) -> list[str]:
    """Paths that are neither in the repository nor, as prose shortens them, below osjax/ or tests/."""
    text = re.sub(r"```diff\n.*?```", "", text, flags=re.DOTALL)  # tests/test_change_one_part.py applies those
    paths = re.findall(r"(?<![\w/.$=-])(?:[a-z_0-9]+/)+[\w.-]+\.(?:py|md|sh|sbatch|yaml|png)\b", text)
    paths += re.findall(r"=(configs/[\w/]+\.py)", text)
    named = [path for path in paths if "NAME" not in path and not path.startswith(("opensora/", "scripts/"))]
    return [path for path in named if not any((ROOT / top / path).exists() for top in ("", "osjax", "tests", "launch"))]


def lost_modules(text: str) -> list[str]:
    """Modules that `python -m` would not find."""
    named = re.findall(r"python -m ([a-z_0-9]+(?:\.[a-z_0-9]+)*)", text)
    return [name for name in named if find_spec(name) is None]


def lost_words(text: str) -> list[str]:
    """Verbs, flags and config keys of commands that osjax does not know."""
    wrong = []
    for verb, rest in re.findall(r"(?<![\w/.\"'-])osjax (?!import\b)([a-z]\w*)([^`\n#]*)", text):
        if verb not in VERBS:
            wrong.append(verb)
            continue
        flags = re.findall(r"(?<!\S)--[\w-]+", rest)
        wrong += [f"{verb} {flag}" for flag in flags if flag not in options_of(verb)]
        path = re.search(r"--config=(configs/[\w/]+\.py)", rest)
        config = path[1] if path else VERBS[verb].default_config
        keys = re.findall(r"--config\.([\w.]+)", rest)
        if keys and config and "--config=" not in rest.replace(f"--config={config}", ""):
            wrong += [f"{config} {key}" for key in keys if key not in dotted_keys(load(config))]
    return wrong


@pages
def test_what_a_page_names_is_there(page):
    text = re.sub(r"```diff\n.*?```", "", page.read_text(), flags=re.DOTALL)  # test_change_one_part.py applies those
    assert lost_files(text) == [] and lost_modules(code(text)) == [] and lost_words(code(text)) == []


def test_names_that_are_not_there_are_noticed():
    text = "`run/train.py`, `ops/rope.py`\n```bash\nosjax train --config=configs/smoke.py --config.workdr=x --dry\n```"
    assert lost_files(text) == ["run/train.py"]
    assert lost_words(code(text)) == ["train --dry", "configs/smoke.py workdr"]
    assert lost_words(code("`osjax trian`")) == ["trian"] and lost_modules("python -m tests.measures.none") != []
