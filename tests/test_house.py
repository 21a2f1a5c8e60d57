"""docs/house.md: the rooms that it names are there, its walks run downwards, and its tree has every floor."""

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "house.md").read_text()


def floors() -> dict[str, int]:
    """How far below the top each floor of the import contract lies; those that share a floor have one number."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return {name: depth for depth, layer in enumerate(layers) for name in re.findall(r"\w+", layer)}


FLOORS = floors()


def walks(page: str) -> dict[str, list[str]]:
    """The names that each numbered list of the page passes, by the heading above it."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        heads = re.findall(r"^\d+\. ((?:`[\w.]+`(?:, )?)+):", section, re.MULTILINE)
        if heads:
            found[section.splitlines()[0]] = [name for head in heads for name in re.findall(r"`([\w.]+)`", head)]
    return found


def room(name: str) -> str:
    """The module of a name such as `training.loop.run`: as much of it as can be imported."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath("osjax", *parts[:end])
        if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
            return ".".join(parts[:end])
    raise LookupError(f"{name} names no module of osjax")


def file_of(module: str) -> Path:
    """The source of a module of osjax."""
    path = ROOT.joinpath("osjax", *module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str) -> tuple[set[str], tuple[str, ...]]:
    """What a module of osjax imports anywhere, or names in a string to import it by, and beginnings of such strings."""
    names, beginnings = set(), []
    for node in ast.walk(ast.parse(file_of(module).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and str(node.value).startswith("osjax."):
            names.add(node.value)
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            beginnings.append(node.values[0].value)
    return names, tuple(one for one in beginnings if one.startswith("osjax."))


def is_imported(module: str, rooms: list[str]) -> bool:
    """Whether one of these rooms imports a module."""
    name = f"osjax.{module}"
    return any(name in names or name.startswith(beginnings) for names, beginnings in map(imports, rooms))


def problems(names: list[str]) -> list[str]:
    """What is wrong with a walk: names that do not exist, rooms passed twice or not led to, floors that rise."""
    wrong, rooms = [], []
    for name in names:
        try:
            here = room(name)
            thing = import_module(f"osjax.{here}")
            for part in name.removeprefix(here).strip(".").split("."):
                thing = getattr(thing, part)
        except (LookupError, AttributeError) as error:
            wrong.append(f"{name} does not exist: {error}")
            continue
        if rooms and FLOORS[here.split(".")[0]] < FLOORS[rooms[-1].split(".")[0]]:
            wrong.append(f"{name} lies above {rooms[-1]}")
        elif here in rooms[:-1] and here != rooms[-1]:
            wrong.append(f"{here} is passed twice")
        elif rooms and here not in rooms and not is_imported(here, rooms):
            wrong.append(f"nothing before {here} imports it")
        rooms.append(here)
    return wrong


def test_every_walk_runs_downwards_through_rooms_that_are_there():
    named = walks(PAGE)
    assert len(named) == 5 and all(len(names) > 5 for names in named.values())
    assert {title: wrong for title, names in named.items() if (wrong := problems(names))} == {}


@pytest.mark.parametrize(
    ("walk", "says"),
    [
        (["stages.data.video_batches", "cli.train.run"], "cli.train.run lies above stages.data"),
        (["data.bucketed.batches", "data.loader.ClipReader", "data.bucketed.planned"], "data.bucketed is passed twice"),
        (["sampling.denoise.Denoiser", "ops.attention.attend"], "nothing before ops.attention imports it"),
        (["training.loop.walk"], "training.loop.walk does not exist"),
        (["run.train.run"], "run.train.run does not exist"),
        (["sampling.pipeline.Pipeline.strem"], "sampling.pipeline.Pipeline.strem does not exist"),
    ],
)
def test_a_walk_that_climbs_or_names_what_is_not_there_is_found(walk, says):
    (problem,) = problems(walk)
    assert problem.startswith(says)


def test_a_walk_in_the_wrong_order_is_found_on_the_page_itself():
    lines = PAGE.replace("1. `stages.diffusion.DiffusionStage`", "1. `flow.path.loss`")
    assert any(problems(names) for names in walks(lines).values())


def test_the_tree_has_every_floor_in_the_order_of_the_contract():
    block = re.search(r"^osjax/\n((?:  .*\n)+)", PAGE, re.MULTILINE)[1]
    listed = [name for line in block.splitlines() for name in re.findall(r"\w+", re.split(r" {2,}", line.strip())[0])]
    assert listed == list(FLOORS)
    there = {
        path.stem for path in (ROOT / "osjax").iterdir() if (path / "__init__.py").exists() or path.suffix == ".py"
    }
    assert set(listed) == there - {"__init__", "configs"}  # which stands for the folder at the top
