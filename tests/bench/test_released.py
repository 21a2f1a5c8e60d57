"""The commands of the docs that measure the released models: each of their programs is traced, on a mesh of eight."""

import re
from functools import cache
from pathlib import Path

import jax
import pytest

from osjax.bench.works import Bench
from osjax.errors import UserError
from osjax.parallel import mesh as device_mesh
from osjax.parts import config
from osjax.parts.bench import BenchKeys
from osjax.parts.groups import to_dataclass

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "configs/bench").glob("*.py"))]
SPLIT = "train --config=configs/bench/v2_768.py --config.mesh.sequence=4"
WORKS = ("train", "denoise")  # those whose programs depend on the config's video and mesh


def commands() -> list[str]:
    """What follows `osjax bench` wherever a page or a config names a released model, once each."""
    lines = [line for page in PAGES for line in re.findall(r"osjax bench ([^`\n#]*)", page.read_text())]
    cleaned = (line.split("  ")[0].strip() for line in lines)
    return sorted({line for line in cleaned if re.search(r"configs/bench/(v2|deep)", line)})


def programs(command: str) -> list[str]:
    """The programs that a command would measure, as text."""
    path = re.search(r"--config=(\S+)", command)[1]
    keys = tuple(tuple(pair.split("=")) for pair in re.findall(r"--config\.(\S+=\S+)", command))
    works = [name for name in WORKS if name in command or not command.startswith(WORKS)]
    return [program(path, keys, name) for name in works]


@cache  # several pages name the same
def program(path: str, keys: tuple[tuple[str, str], ...], work: str) -> str:
    """One program of a config with changed keys, with two blocks of the model's width, traced and lowered."""
    cfg = to_dataclass(BenchKeys, config.load(path, {**dict(keys), "blocks": (1, 1)}), "")
    return Bench.of(cfg, device_mesh.make(**vars(cfg.mesh))).works[work]().lower().as_text()


def test_the_docs_measure_the_released_models():
    assert len(commands()) >= 5 and any("mesh.sequence=4" in command for command in commands())


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_docs_has_programs_for_its_mesh(command):
    assert all("stablehlo.dot_general" in text for text in programs(command))


def test_a_split_sequence_exchanges_tokens_for_heads_and_a_whole_one_does_not():
    whole = SPLIT.replace(" --config.mesh.sequence=4", "")
    assert ["stablehlo.all_to_all" in text for text in (*programs(SPLIT), *programs(whole))] == [True, False]


def test_attention_by_name_is_not_changed_for_a_mesh_that_it_does_not_suit():
    assert jax.device_count() == 8
    with pytest.raises(UserError, match='attention "blockwise" needs all tokens on every device'):
        programs(f"{SPLIT} --config.model.attention=blockwise")
