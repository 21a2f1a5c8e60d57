"""`osjax eval recon`: an autoencoder's reconstructions of videos, measured and shown."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from osjax import models
from osjax.curation import probe, tables
from osjax.data import dataset, loader, table
from osjax.errors import UserError
from osjax.evals import recon, report, seams
from osjax.evals.latents import LatentStatistics
from osjax.models import tiling
from osjax.models.autoencoder import LatentScale, Tiling
from osjax.run import start
from osjax.run.config import to_dataclass
from osjax.sampling import workdir as finished_run
from osjax.sampling.autoencoder import Autoencoder, to_uint8
from osjax.weights import load
from osjax.weights.leaves import Leaves

FAMILIES = ("dcae", "hunyuan", "flux_ae")


def add_options(parser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, parser_class=type(parser))
    text = "PSNR, SSIM, LPIPS, flicker and latent statistics of an autoencoder"
    step = steps.add_parser("recon", description=text, help=text)
    step.add_argument("source", nargs="?", metavar="VIDEOS", help="instead of config.data.source")
    step.add_argument("--workdir", help="of a finished run, instead of config.autoencoder.workdir")
    step.add_argument("--output", help="folder to write to, instead of config.output")


def run(cfg: ConfigDict, args) -> None:
    cfg.data.source = args.source or cfg.data.source
    cfg.autoencoder.workdir = args.workdir or cfg.autoencoder.workdir
    cfg.output = args.output or cfg.output
    autoencoder = _autoencoder(cfg.autoencoder)
    asked = _tiling(cfg.tiling)
    size = (cfg.data.frames, cfg.data.height, cfg.data.width)
    autoencoder.module.latent_shape(*size)
    distance = _lpips(cfg.lpips) if cfg.lpips else None
    clips = _clips(cfg.data, cfg.autoencoder.workdir)
    folder = Path(cfg.output)
    folder.mkdir(parents=True, exist_ok=True)

    rows, shown, of_tiling, statistics = [], [], [], LatentStatistics()
    for n, clip in enumerate(tqdm(clips, desc="recon", unit="video", mininterval=1)):
        done = _reconstruct(autoencoder, clip.video_THWC, asked, cfg.tiling.compare)
        statistics.add(done.latents_BTHWC)
        want = to_uint8(clip.video_THWC)[: len(done.got_THWC)]
        row = {"name": clip.name, "frames": len(want), **_measure(done.got_THWC, want, distance)}
        if done.whole_THWC is not None:
            row["seams"] = seams.seam_error(done.got_THWC, done.whole_THWC[: len(want)], asked)
            row["psnr_whole"] = float(recon.psnr(done.whole_THWC[None, : len(want)], want[None])[0])
            of_tiling.append({**row["seams"], "psnr_lost": row["psnr_whole"] - row["psnr"]})
        rows.append(row)
        if n < cfg.show:
            shown.append(f"{n:03d}")
            report.write_clip(folder, shown[-1], want, done.got_THWC, recon.error_map(done.got_THWC, want), clip.fps)
    result = {
        "model": _describe(autoencoder, cfg.autoencoder),
        "size": dict(zip(("frames", "height", "width"), size, strict=True)),
        "mean": report.summary(rows),
        "reported": report.REPORTED,
        "latents": _latents(statistics, autoencoder),
        "seams": _mean_of(of_tiling),
        "videos": rows,
    }
    report.write(folder, result, shown)
    print("\n".join(report.lines(result)))
    print(f"see {folder / 'recon.html'}")


def _measure(got: np.ndarray, want: np.ndarray, distance) -> dict[str, float]:
    found = {"psnr": recon.psnr, "ssim": recon.ssim, "flicker": recon.flicker}
    if distance is not None:
        found["lpips"] = distance
    return {name: float(of(got[None], want[None])[0]) for name, of in found.items()}


class Reconstruction(NamedTuple):
    """got: the reconstruction, uint8. whole: the same without tiles, or None."""

    got_THWC: np.ndarray
    whole_THWC: np.ndarray | None
    latents_BTHWC: np.ndarray


def _reconstruct(autoencoder: Autoencoder, video_THWC: np.ndarray, asked: Tiling, compare: bool) -> Reconstruction:
    x = jnp.asarray(video_THWC)[None]
    tiled = asked.use_spatial_tiling or asked.use_temporal_tiling
    plain = None
    if not tiled or compare:
        latents = _tiled("encode", autoencoder, x, Tiling())
        plain = to_uint8(jax.device_get(_tiled("decode", autoencoder, latents, Tiling())))[0]
    if not tiled:
        return Reconstruction(plain, None, np.asarray(latents))
    latents = _tiled("encode", autoencoder, x, asked)
    got = to_uint8(jax.device_get(_tiled("decode", autoencoder, latents, asked)))[0]
    return Reconstruction(got, plain, np.asarray(latents))


def _tiled(method: str, autoencoder: Autoencoder, x: jax.Array, asked: Tiling) -> jax.Array:
    """`tiling.encode` or `.decode` with just these tiles, whatever the model's config asks for."""
    return getattr(tiling, method)(autoencoder.module, autoencoder.params, x, **vars(asked))


def _tiling(cfg: ConfigDict) -> Tiling:
    made = Tiling(tile_overlap_factor=cfg.tile_overlap_factor)
    if cfg.spatial_tile_size:
        made = replace(made, use_spatial_tiling=True, spatial_tile_size=cfg.spatial_tile_size)
    if cfg.temporal_tile_size:
        made = replace(made, use_temporal_tiling=True, temporal_tile_size=cfg.temporal_tile_size)
    return made


def _autoencoder(cfg: ConfigDict) -> Autoencoder:
    if bool(cfg.workdir) == bool(cfg.weights):
        raise UserError(
            "say which autoencoder: --workdir=DIR of a finished run, or --config.autoencoder.weights=FILE", status=2
        )
    if cfg.workdir:
        trained = finished_run.read(cfg.workdir).autoencoder
        if trained is None:
            raise UserError(f"{cfg.workdir} trained no autoencoder: give --config.autoencoder.weights", status=2)
        leaves = start.of_checkpoint(Path(cfg.workdir) / trained.checkpoints, trained.averaged)
        return Autoencoder(_module(trained.config, cfg.dtype), _params(leaves))
    if cfg.family not in FAMILIES:
        raise UserError(f"autoencoder.family is {cfg.family!r}: use one of {', '.join(FAMILIES)}", status=2)
    model_cfg = to_dataclass(models.config_class(cfg.family), cfg.config, "autoencoder.config")
    leaves = load.open_leaves(model_cfg, cfg.weights, average=True)
    return Autoencoder(_module(model_cfg, cfg.dtype), _params(leaves))


def _module(model_cfg: Any, dtype: str) -> Any:
    return models.build(model_cfg).clone(dtype=jnp.dtype(dtype))


def _params(leaves: Leaves) -> Any:
    return jax.device_put(leaves.cast(np.float32).tree())


def _lpips(path: str):
    lpips_cfg = models.config("lpips")
    return recon.lpips(models.build(lpips_cfg), _params(load.open_leaves(lpips_cfg, path)))


class Clip(NamedTuple):
    """video: pixels in [-1, 1], float32."""

    name: str
    video_THWC: np.ndarray
    fps: float


def _clips(cfg: ConfigDict, workdir: str | None) -> Iterator[Clip]:
    source = _source(cfg.source, workdir)
    records = [record for record in source if int(record["num_frames"]) >= cfg.frames]
    if not records:
        raise UserError(f"no video has {cfg.frames} frames: lower --config.data.frames")
    if len(records) < len(source):
        print(f"{len(source) - len(records)} of {len(source)} videos are shorter than {cfg.frames} frames: left out")
    read = loader.ClipReader(records, cfg.frames, cfg.height, cfg.width, fps_max=cfg.fps_max)
    return (_clip(read, n, cfg.fps_max) for n in range(min(cfg.limit or len(records), len(records))))


def _clip(read: loader.ClipReader, n: int, fps_max: float) -> Clip:
    example = read(n)
    record = read.source[example["index"]]
    rate = float(record["fps"]) or fps_max
    return Clip(Path(record["path"].decode()).stem, example["video"], rate / -(-rate // fps_max))


def _source(source: str | None, workdir: str | None) -> Sequence[dict[str, Any]]:
    """Records of a data set, a table, a folder or a single video; without any, the held-out clips of a run."""
    if not source:
        held_out = sorted(Path(workdir or ".").glob("data/held_out/**/dataset_info.json")) if workdir else []
        if not held_out:
            raise UserError(
                "say which videos: osjax eval recon VIDEOS, a file, a folder, a table or a data set", status=2
            )
        return dataset.open_source(held_out[-1].parent)
    path = Path(source)
    if not path.exists():
        raise UserError(f"{path} does not exist: give a video, a folder, a table or a data set", status=2)
    if (path / "dataset_info.json").is_file():
        return dataset.open_source(path)
    if path.is_dir():
        files = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in tables.VIDEO_SUFFIXES)
        if not files:
            raise UserError(f"{path} holds no video ({', '.join(tables.VIDEO_SUFFIXES)})", status=2)
    else:
        files = [row["path"] for row in table.read(path)] if path.suffix in (".csv", ".parquet") else [str(path)]
    return [{**probe.measure(Path(f)), "video": f, "path": f.encode(), "text": b""} for f in files]


def _latents(statistics: LatentStatistics, autoencoder: Autoencoder) -> dict[str, Any]:
    """Their statistics, and what the model's own constants would have to be for the latents to be normal."""
    found = statistics.report()
    model_cfg = autoencoder.module.cfg
    if models.family_of(model_cfg) == "dcae":  # the DC-AE divides by its factor, and has no shift
        implied = {"scaling_factor": found["std"] / float(model_cfg.latent_scale.scale)}
    else:
        mean, std = statistics.overall
        own = _scale_of(model_cfg)
        scale, shift = float(np.mean(own.scale)), float(np.mean(own.shift))
        implied = {"scale": scale / std, "shift": shift + mean / scale}
    return {**found, "implied": implied}


def _scale_of(model_cfg: Any) -> LatentScale:
    if models.family_of(model_cfg) == "flux_ae":
        return LatentScale(model_cfg.scale_factor, model_cfg.shift_factor)
    return model_cfg.latent_scale


def _mean_of(rows: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    def mean(values: list[float | None]) -> float | None:
        return float(np.mean(values)) if None not in values else None

    return {name: mean([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _describe(autoencoder: Autoencoder, cfg: ConfigDict) -> str:
    return f"{models.family_of(autoencoder.module.cfg)} from {cfg.workdir or cfg.weights}"
