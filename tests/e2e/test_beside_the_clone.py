"""osjax installed from a clone in a folder called osjax, and started from the folder that the clone lies in."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)
WHERE = "import osjax, osjax.configs.smoke as smoke; print(osjax.__version__, osjax.__file__, smoke.__file__)"


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """A folder with the clone, as git has its files: the link too."""
    folder = tmp_path_factory.mktemp("beside")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in map(Path, filter(None, listed.decode().split("\0"))):
        if name.parts[0] in ("tests", "docs", "notebooks") or not (ROOT / name).exists():
            continue
        (folder / "osjax" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "osjax" / name, follow_symlinks=False)
    return folder


def environment(folder: Path, *install: str) -> Path:
    """The Python of a fresh environment with osjax, and what it depends on from this one."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n"
    )
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]
    subprocess.run([*command, *install], check=True, timeout=300)
    return folder / "bin" / "python"


def said(python: Path, folder: Path, code: str) -> str:
    done = subprocess.run([python, "-c", code], cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a clone")
@pytest.mark.parametrize("editable", [True, pytest.param(False, marks=pytest.mark.long)])
def test_osjax_is_the_package_and_not_the_folder_of_the_clone(beside, tmp_path, editable):
    python = environment(tmp_path / "environment", *(["-e"] if editable else []), str(beside / "osjax"))
    _, package, config = said(python, beside, WHERE).split()
    assert (Path(package).resolve() == beside / "osjax" / "osjax" / "__init__.py") == editable
    assert (Path(config) == beside / "osjax" / "configs" / "smoke.py") == editable
    assert editable or all("site-packages" in place for place in (package, config))
    assert said(python, tmp_path, WHERE).split()[1] == package  # from anywhere else the same
    lost = "import importlib.util as u; print([n for n in ('configs', 'launch', 'src') if u.find_spec(n)])"
    assert said(python, tmp_path, lost) == "[]"  # nothing else of the clone is importable
    shutil.rmtree(tmp_path / "environment")


def test_without_the_install_it_is_the_folder_that_python_finds(beside):
    """The control: a folder that is only called so has no version."""
    done = subprocess.run([sys.executable, "-S", "-c", WHERE], cwd=beside, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "osjax" in done.stderr
