"""The notebooks are committed without results, and every cell of them runs."""

import json
import os
from pathlib import Path

import jax
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from osjax.data import clips
from osjax.data.video import decode
from osjax.training import metrics
from tests import compiler_flags

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.timeout(600)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """What a notebook holds beside its text and its code."""
    found = [] if notebook.metadata.kernelspec.name == "python3" else ["another kernel than python3"]
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            found.append(f"cell {number} has results of a run")
    return found


def execute(notebook: nbformat.NotebookNode, folder: Path, monkeypatch) -> Path:
    """Run every cell in a process of its own, whose current and temporary folder is `folder`; where it put its files.

    CellExecutionError for a cell that fails.
    """
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder / "jupyter"))  # not the kernels of whoever runs the tests
    changes = {"TMPDIR": folder, "IPYTHONDIR": folder / "ipython", "XLA_FLAGS": compiler_flags.devices(1)}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **{name: str(value) for name, value in changes.items()}}
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute(env=env)
    return next(folder.glob("osjax-*"), folder)


def means(workdir: Path, stage: str) -> tuple[float, float]:
    """Mean loss of a stage's first and of its last four steps."""
    losses = [line["loss"] for line in metrics.read(workdir / "metrics.jsonl") if line["stage"] == stage]
    assert len(losses) >= 12
    return np.mean(losses[:4]), np.mean(losses[-4:])


def said(path: Path) -> dict:
    """The JSON of a sample."""
    return json.loads(path.with_suffix(".json").read_text())


def html(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells show as HTML."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_holds_no_results(path):
    notebook = read(path.stem)
    nbformat.validate(notebook)
    assert problems(notebook) == []
    notebook.cells[1].execution_count = 1
    notebook.cells[3].outputs = [nbformat.v4.new_output("stream", text="seen")]
    assert problems(notebook) == ["cell 1 has results of a run", "cell 3 has results of a run"]


def test_every_notebook_is_run_and_listed():
    ran = {"sample", "train_on_your_clips", "change_the_model"}
    assert {path.stem for path in NOTEBOOKS} == ran
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert all(f"notebooks/{name}.ipynb" in page for name in ran)


def test_prompts_seeds_settings_and_an_image_become_videos(tmp_path, monkeypatch):
    notebook = read("sample")
    folder = execute(notebook, tmp_path, monkeypatch)
    made = sorted((folder / "from_prompts").glob("*.mp4"))
    assert len(made) == 2 and all(decode(path).shape == (8, 64, 64, 3) for path in made)
    assert not np.array_equal(*map(decode, made))
    assert not np.array_equal(decode(folder / "guidance_1.mp4"), decode(folder / "guidance_6.mp4"))
    assert said(folder / "guidance_6.mp4")["guidance"] == 6 and said(folder / "from_image.mp4")["mode"] == "i2v_head"
    shown = html(notebook)
    assert len(shown) == 3 and all("<video src=" in text for text in shown)


def test_a_folder_of_clips_becomes_a_model(tmp_path, monkeypatch):
    notebook = read("train_on_your_clips")
    folder = execute(notebook, tmp_path, monkeypatch)
    assert len(list((folder / "clips").glob("*.mp4"))) == 33
    for stage in ("autoencoder", "video_model"):
        first, last = means(folder / "run", stage)
        assert last < 0.9 * first, stage
    assert len(list((folder / "samples").glob("*.mp4"))) == 2 and len(html(notebook)) == 1
    assert (folder / "losses.png").stat().st_size > 5000
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "32 clips can be used" in text and "dropped: CLIPS/damaged.mp4 cannot be decoded" in text


@pytest.mark.long
def test_a_new_mode_trains_and_samples_and_its_image_arrives_in_the_middle(tmp_path, monkeypatch):
    folder = execute(read("change_the_model"), tmp_path, monkeypatch)
    first, last = means(folder / "run", "video_model")
    assert last < 0.9 * first
    saved = json.loads((folder / "run" / "model.json").read_text())
    assert saved["denoiser"]["checkpoints"] == "video_model/checkpoints"
    names = "from_the_middle", "without_putting_back", "from_text"
    given, modelled, alone = (sorted((folder / name).glob("*.mp4")) for name in names)
    assert [said(path)["mode"] for path in given + modelled + alone] == ["i2v_middle"] * 4 + ["t2v"] * 2
    assert not np.array_equal(decode(modelled[0]), decode(alone[0]))  # the model is told
    images = [clips.render(spec, 64, 12)[6] for spec in clips.specs(2, 3, clips.split()[1])]

    def distances(path, image):
        """Distance of each latent frame's frames to the image."""
        return np.abs(decode(path).astype(float) - image).reshape(3, -1).mean(axis=1)

    for path, without, image in zip(given, alone, images, strict=True):
        nearer = distances(without, image) - distances(path, image)
        assert nearer[1] > 2 * np.abs(nearer[[0, 2]]).max()  # in the middle, and nowhere else


def test_a_notebook_whose_row_is_missing_fails(tmp_path, monkeypatch):
    notebook = read("change_the_model")
    (row,) = [cell for cell in notebook.cells if cell.cell_type == "code" and "modes.MODES[" in cell.source]
    row.source = ""
    with pytest.raises(CellExecutionError, match="unknown condition mode 'i2v_middle'"):
        execute(notebook, tmp_path, monkeypatch)


def test_the_notebooks_run_the_code_of_this_checkout_on_one_device(tmp_path, monkeypatch):
    cell = "import jax, osjax\nprint(osjax.__file__, jax.device_count())"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    execute(notebook, tmp_path, monkeypatch)
    assert notebook.cells[0].outputs[0].text.split() == [str(ROOT / "osjax" / "__init__.py"), "1"]
    assert jax.device_count() == 8  # of the tests themselves
