"""The floors of the house: import-linter's contract over the code, and over a small house that breaks it."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    *"types errors atomic file_name plain_line json_file object_store lock integrity".split(),
    *"parallel flow data curation ops models conditioning".split(),
    *"weights training sampling evals parts stages planning bench serve pages cli".split(),
]


def _lint(folder: Path) -> subprocess.CompletedProcess:
    """Run `lint-imports` as the console script does, from a folder that holds pyproject.toml and osjax/."""
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    command = [sys.executable, "-c", program, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_every_import_keeps_the_floors():
    result = _lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.fixture
def small_house(tmp_path):
    """An empty osjax under the real contract; write imports into it to break it."""
    contract = (ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(contract)
    for name in ["", *FLOORS]:
        (tmp_path / "osjax" / name).mkdir()
        (tmp_path / "osjax" / name / "__init__.py").touch()
    return tmp_path


def test_an_empty_house_keeps_the_floors(small_house):
    result = _lint(small_house)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "module, line, contract",
    [
        ("ops/rope.py", "from osjax.models import mmdit", "Floors"),
        ("flow/path.py", "from osjax.parallel import mesh", "Floors"),
        ("sampling/pipeline.py", "from osjax.training import state", "Floors"),
        ("weights/io.py", "def f():\n    from osjax.parts import config", "Floors"),
        ("training/loop.py", "from osjax.planning import cost", "Floors"),
        ("shelf.py", "", "Floors"),  # a module that stands on no floor
        ("data/loader.py", "import jax.numpy as jnp", "Loader workers"),
        ("curation/cut.py", "from flax import linen", "Loader workers"),
        ("training/loop.py", "from osjax.data import loader", "Training never"),
        ("training/loop.py", "from ml_collections import ConfigDict", "A ConfigDict"),
        ("models/t5.py", "import torch", "No other framework"),
        ("data/clips.py", "import tensorflow as tf", "No other framework"),
    ],
)
def test_a_house_that_breaks_the_contract_is_refused(small_house, module, line, contract):
    for name in ("parallel/mesh.py", "models/mmdit.py", "training/state.py", "data/loader.py", "parts/config.py"):
        (small_house / "osjax" / name).touch()
    (small_house / "osjax" / module).write_text(line + "\n")
    result = _lint(small_house)
    assert result.returncode == 1, result.stdout + result.stderr
    broken = [row for row in result.stdout.splitlines() if row.rstrip().endswith("BROKEN")]
    assert any(row.startswith(contract) for row in broken), result.stdout


def _imports(folder: Path) -> dict[str, set[str]]:
    """The modules of `folder`/osjax by name, and which of them each imports, in functions and for types as well."""
    files = {}
    for path in (folder / "osjax").rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    imports = {}
    for name, path in files.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} line {node.lineno}: name the whole module"
                names = {f"{node.module}.{alias.name}" for alias in node.names}  # of modules, or of what is in one
                targets |= {name if name in files else node.module for name in names}
        imports[name] = targets & files.keys() - {name}
    return imports


def _circle(imports: dict[str, set[str]]) -> list[str] | None:
    """Modules that import each other in a ring, the first once more at the end; None where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_no_modules_import_each_other_in_a_circle():
    imports = _imports(ROOT)
    assert len(imports) > 150 and "osjax.sampling.job" in imports["osjax.sampling.pipeline"]
    imports["osjax.curation.engine"] -= {"osjax.curation.beam"}
    imports["osjax"] = set()  # names its public parts for type checkers, and loads each on first use
    assert _circle(imports) is None


@pytest.mark.parametrize("line", ["from osjax.ops import rope", "def f():\n    import osjax.ops.rope"])
def test_a_circle_is_found_wherever_the_import_stands(small_house, line):
    ops = small_house / "osjax" / "ops"
    (ops / "rope.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from osjax.ops.ring import x\n"
    )
    (ops / "ring.py").write_text("x = 1\n")
    assert _circle(_imports(small_house)) is None
    (ops / "ring.py").write_text(line + "\n")
    assert set(_circle(_imports(small_house))) == {"osjax.ops.rope", "osjax.ops.ring"}


def test_every_folder_of_code_is_a_package():
    # A folder without __init__.py would be invisible to the contract.
    folders = {p.parent for top in ("osjax", "configs") for p in (ROOT / top).rglob("*.py")}
    assert [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def test_no_forbidden_framework_is_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    assert not set(map(_name, wanted)) & {"tensorflow", "torch", "tensorflow-cpu", "torchvision"} and "jax" in map(
        _name, wanted
    )


def _imported(source: str) -> set[str]:
    """Modules that a file imports, at its top or anywhere else; `from a import b` may mean the module a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _private(source: str) -> set[str]:
    return {name for name in _imported(source) if name.split(".")[:2] in (["jax", "_src"], ["jaxlib", "_jax"])}


def test_no_file_imports_the_private_modules_of_jax():
    files = [p for top in ("osjax", "tests", "configs") for p in (ROOT / top).rglob("*.py")]
    assert len(files) > 100
    assert {str(p.relative_to(ROOT)): found for p in files if (found := _private(p.read_text()))} == {}
    for line in ("from jax._src import core", "import jax._src.cudnn.fused as f", "from jax import _src"):
        assert _private(f"def f():\n    {line}\n")


DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "orbax": "orbax-checkpoint",
    "skimage": "scikit-image",
}
DISTRIBUTIONS |= {"jaxlib": "jax", "yaml": "pyyaml"}  # jax brings the jaxlib that it needs
OURS = {"osjax", "configs", "tests"}


def _name(requirement: str) -> str:
    """Of what is required, as distributions compare names."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def _third_parties(*tops: str) -> set[str]:
    """Distributions whose modules the files below some folders import."""
    sources = [p.read_text() for top in tops for p in (ROOT / top).rglob("*.py")]
    modules = {name.split(".")[0] for source in sources for name in _imported(source)}
    modules |= {name for source in sources for name in re.findall(r'\bneed\("(\w+)"', source)} - {"no_such_library"}
    return {_name(DISTRIBUTIONS.get(name, name)) for name in modules - OURS - sys.stdlib_module_names}


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core, extras = set(map(_name, project["dependencies"])), project["optional-dependencies"]
    optional = {_name(line) for name, lines in extras.items() if name != "test" for line in lines}
    assert _third_parties("osjax", "configs") - core - optional == set()
    of_tests = {
        _name(line) for name in ("test", "stores", "browser", "wandb") for line in extras[name]
    }  # all but the first may be missing
    assert _third_parties("tests") - core - of_tests == set()
    unused = core - _third_parties("osjax", "configs")
    assert unused == {"importlib-resources"}  # tensorflow-datasets imports it without a word
    assert "safetensors" in _third_parties("tests") - core and "torch" not in _third_parties("osjax")  # it can tell


def test_every_dependency_of_the_core_has_bounds():
    """The lower one is what continuous integration runs on its oldest Python, see .ci/oldest.py."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounded = re.compile(r"[\w.-]+(\[[\w,-]+\])?>=[\d.]+,<[\d.]+")
    assert [line for line in project["dependencies"] if not bounded.fullmatch(line)] == []
    assert not bounded.fullmatch("jax>=0.10.2") and not bounded.fullmatch("jax<0.13")


def test_the_oldest_versions_are_the_lower_bounds():
    def lines(*arguments):
        command = [sys.executable, ROOT / ".ci" / "oldest.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = lines("test")
    assert set(map(_name, oldest)) >= set(map(_name, project["dependencies"])) and "av==18" in oldest
    assert not any(mark in line for line in oldest for mark in "[<>,")  # pip's constraints know no extras
    assert any(line.startswith("etils[epath]>=") for line in lines("--newest")) and not "".join(
        lines("--newest")
    ).count("<")
