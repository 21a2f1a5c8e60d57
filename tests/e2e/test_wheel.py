"""What `pip install` of a wheel gives: commands that work from any folder, whatever the folder holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import compiler_flags

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)
# The user's own configs: a package of the same name as the shipped folder, with a neighbour beside the config.
MINE = """
from osjax.configs import smoke
from configs import shared          # a package of the folder that the command runs in
import neighbour                    # a file beside this one

def get_config():
    cfg = smoke.get_config()
    cfg.clips.train = shared.CLIPS
    cfg.stages.autoencoder.steps = neighbour.STEPS
    return cfg
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A fresh environment with osjax from a wheel, and what it depends on from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = folder.glob("osjax-*.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True, timeout=120)
    (site,) = environment.glob("lib/python*/site-packages")
    # A line in a .pth is a place to look: installed packages of this environment, but not its editable osjax.
    (site / "dependencies.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n"
    )
    return python


def osjax(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The console script, as a shell starts it."""
    command = [python.with_name("osjax"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)


def test_smoke_trains_from_an_empty_folder(python, compiled, tmp_path, monkeypatch):
    where = [python, "-c", "import osjax, osjax.configs; print(osjax.__file__, *osjax.configs.__path__)"]
    places = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    assert len(places) == 2 and all("site-packages" in place for place in places)
    monkeypatch.setenv("XLA_FLAGS", compiler_flags.devices(1))  # whose programs other tests compile too
    done = osjax(python, tmp_path, "train", "--config=configs/smoke.py", f"--config.compilation_cache={compiled}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "smoke" / "model.json").is_file()


def test_a_folder_with_configs_of_its_own_is_no_obstacle(python, tmp_path):
    mine = tmp_path / "configs"
    mine.mkdir()
    (mine / "__init__.py").touch()
    (mine / "shared.py").write_text("CLIPS = 24\n")
    (mine / "neighbour.py").write_text("STEPS = 3\n")
    (mine / "mine.py").write_text(MINE)
    done = osjax(python, tmp_path, "train", "--config=configs/mine.py", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "autoencoder, 3 steps" in done.stdout
    shipped = osjax(python, tmp_path, "train", "--config=configs/smoke.py", "--dry-run")  # not in that folder
    assert shipped.returncode == 0 and "autoencoder, 16 steps" in shipped.stdout, shipped.stderr
    plan = osjax(python, tmp_path, "plan", "--config=configs/mine.py", "--target=h200x8", "--json=plan.json")
    assert plan.returncode == 0 and json.loads((tmp_path / "plan.json").read_text())["devices"] == 8, plan.stderr
    missing = osjax(python, tmp_path, "train", "--config=configs/smoek.py")
    assert missing.returncode == 2 and "did you mean configs/smoke.py?" in missing.stderr


def test_a_neighbour_is_forgotten_with_its_config(tmp_path):
    from osjax.parts import config

    for name, clips in (("one", 8), ("two", 16)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "beside.py").write_text(f"CLIPS = {clips}\n")
        source = "import beside\nfrom osjax.configs import smoke\n\ndef get_config():\n    cfg = smoke.get_config()\n"
        (tmp_path / name / "my.py").write_text(source + "    cfg.clips.train = beside.CLIPS\n    return cfg\n")
    before = sys.path[:]
    assert [config.load(tmp_path / name / "my.py").clips.train for name in ("one", "two")] == [8, 16]
    assert sys.path == before and "beside" not in sys.modules
