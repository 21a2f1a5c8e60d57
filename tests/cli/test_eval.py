"""`osjax eval recon` as a user runs it, on weight files with the original's names."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from osjax.__main__ import main
from osjax.data import video
from tests import golden
from tests.models import lpips_weights


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two short videos, one longer than the other, an image autoencoder and LPIPS."""
    folder = tmp_path_factory.mktemp("eval")
    (folder / "videos").mkdir()
    rng = np.random.RandomState(0)
    for name, frames in (("a", 3), ("b", 2), ("short", 1)):
        video.write_mp4(folder / "videos" / f"{name}.mp4", rng.randint(0, 256, (frames, 32, 40, 3)).astype(np.uint8), 8)
    described = golden.read_json("manifest_ae2d_tiny")
    shapes = {name: tuple(entry["shape"]) for name, entry in described["state_dict"].items()}
    save_file({name: golden.generate(name, shape) for name, shape in shapes.items()}, folder / "ae.safetensors")
    save_file(lpips_weights.tensors(), folder / "lpips.safetensors")
    return folder


def arguments(files, output, *more: str) -> list[str]:
    model = {"ch": 32, "ch_mult": (1, 2, 2), "num_res_blocks": 1, "z_channels": 8, "resolution": 64}
    (files / "my.py").write_text(
        "from osjax.configs.eval import recon\n\ndef get_config():\n    cfg = recon.get_config()\n"
        f"    cfg.autoencoder.config.update({model})\n    return cfg\n"
    )
    size = ["--config.data.frames=2", "--config.data.height=32", "--config.data.width=32"]
    weights = [f"--config.autoencoder.weights={files / 'ae.safetensors'}", "--config.autoencoder.family=flux_ae"]
    return ["eval", "recon", f"--config={files / 'my.py'}", f"--output={output}", *size, *weights, *more]


def test_a_folder_of_videos_becomes_figures_a_page_and_pictures(files, tmp_path, capsys):
    more = (str(files / "videos"), f"--config.lpips={files / 'lpips.safetensors'}", "--config.show=1")
    assert main(arguments(files, tmp_path, *more)) == 0
    result = json.loads((tmp_path / "recon.json").read_text())
    assert [row["name"] for row in result["videos"]] == ["a", "b"]
    for name in ("psnr", "ssim", "lpips", "flicker"):
        values = [row[name] for row in result["videos"]]
        assert result["mean"][name] == pytest.approx(np.mean(values)) and values[0] != values[1]
    assert len(result["latents"]["channel_std"]) == 8 and result["latents"]["std"] > 0
    panels = video.decode(tmp_path / "000.mp4")
    assert panels.shape == (2, 32, 96, 3)
    original = video.decode(files / "videos" / "a.mp4", 1)[0][:, 4:36]
    assert np.abs(panels[0, :, :32].astype(int) - original).mean() < 20
    assert np.abs(panels[0, :, 32:64].astype(int) - original).mean() > 30  # made by meaningless weights
    assert (tmp_path / "000.png").is_file() and not (tmp_path / "001.mp4").exists()
    page = (tmp_path / "recon.html").read_text()
    assert "30.538" in page and "000.mp4" in page
    printed = capsys.readouterr().out
    assert "PSNR 30.538 dB, SSIM 0.8630, LPIPS 0.0510" in printed and "1 of 3 videos are shorter" in printed


@pytest.mark.long
def test_tiles_are_compared_with_the_whole(files, tmp_path):
    tiles = ("--config.tiling.spatial_tile_size=16", "--config.tiling.tile_overlap_factor=0.25")
    wrong = ("--config.tiling.spatial_tile_size=20",)
    path = str(files / "videos" / "a.mp4")
    assert main(arguments(files, tmp_path / "x", path, *wrong)) != 0
    assert main(arguments(files, tmp_path, path, *tiles)) == 0
    result = json.loads((tmp_path / "recon.json").read_text())
    row = result["videos"][0]
    assert row["psnr_whole"] != row["psnr"]
    assert result["seams"]["seam"] > 0 and result["seams"]["psnr_lost"] == pytest.approx(
        row["psnr_whole"] - row["psnr"]
    )


@pytest.mark.parametrize(
    "change, says",
    [
        ((), "say which videos"),
        (("nowhere",), "nowhere does not exist"),
        (("--config.data.height=30",), "nearest valid height is 32"),
        (("--workdir=runs/x",), "say which autoencoder"),
        (("--config.autoencoder.family=vae",), "use one of dcae, hunyuan, flux_ae"),
    ],
)
def test_mistakes_are_one_line(files, tmp_path, capsys, change, says):
    assert main(arguments(files, tmp_path, *change)) != 0
    assert says in capsys.readouterr().err
