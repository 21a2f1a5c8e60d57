"""An autoencoder's reconstructions of videos, measured and shown: `osjax eval recon`."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from osjax import models
from osjax.curation import probe, tables
from osjax.curation.isolate import Limits, Pool
from osjax.data import bucketed, dataset, loader, transforms
from osjax.errors import UserError
from osjax.evals import recon, seams
from osjax.evals.latents import LatentStatistics
from osjax.models import tiling
from osjax.models.autoencoder import Tiling
from osjax.pages import recon as page
from osjax.parts import autoencoder as autoencoders
from osjax.parts import dtype
from osjax.parts.groups import refuse
from osjax.parts.reconstruction import AutoencoderChoice, ReconstructionKeys, VideoKeys
from osjax.plain_line import plain
from osjax.sampling import workdir as finished_run
from osjax.sampling.autoencoder import Autoencoder, to_uint8
from osjax.types import Json
from osjax.weights import load
from osjax.weights.leaves import Leaves


class Opened(NamedTuple):
    """What a measurement works on. distance: LPIPS of (got, want), or None. clips: the videos, decoded one by one."""

    autoencoder: Autoencoder
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
    clips: Iterator["Clip"]


def opened(keys: ReconstructionKeys) -> Opened:
    """The autoencoder and the videos of these keys, before anything is measured. UserError for what is not there."""
    autoencoder = _autoencoder(keys.autoencoder)
    autoencoder.module.latent_shape(keys.data.frames, keys.data.height, keys.data.width)
    distance = _lpips(keys.lpips) if keys.lpips else None
    return Opened(autoencoder, distance, _clips(keys.data, keys.autoencoder.workdir))


def run(keys: ReconstructionKeys) -> None:
    """Measure an autoencoder's reconstructions and write recon.json, recon.html and the videos to look at."""
    autoencoder, distance, clips = opened(keys)
    asked, data = keys.tiling.asked, keys.data
    size = (data.frames, data.height, data.width)
    folder = Path(keys.output)
    folder.mkdir(parents=True, exist_ok=True)

    rows, shown, of_tiling, statistics = [], [], [], LatentStatistics()
    for n, clip in enumerate(tqdm(clips, desc="recon", unit="video", mininterval=1)):
        done = _reconstruct(autoencoder, clip.video_THWC, asked, keys.tiling.compare)
        statistics.add(done.latents_BTHWC)
        want = to_uint8(clip.video_THWC)[: len(done.got_THWC)]
        row = {"name": clip.name, "frames": len(want), **_measure(done.got_THWC, want, distance)}
        if done.whole_THWC is not None:
            row["seams"] = seams.seam_error(done.got_THWC, done.whole_THWC[: len(want)], asked)
            row["psnr_whole"] = float(recon.psnr(done.whole_THWC[None, : len(want)], want[None])[0])
            of_tiling.append({**row["seams"], "psnr_lost": row["psnr_whole"] - row["psnr"]})
        rows.append(row)
        if n < keys.show:
            shown.append(f"{n:03d}")
            page.write_clip(folder, shown[-1], want, done.got_THWC, recon.error_map(done.got_THWC, want), clip.fps)
    result = {
        "model": _describe(autoencoder, keys.autoencoder),
        "size": dict(zip(("frames", "height", "width"), size, strict=True)),
        "mean": page.summary(rows),
        "reported": page.REPORTED,
        "latents": _latents(statistics, autoencoder),
        "seams": _mean_of(of_tiling),
        "videos": rows,
    }
    page.write(folder, result, shown)
    print("\n".join(map(plain, page.lines(result))))
    print(f"see {folder / 'recon.html'}")


def _measure(got: np.ndarray, want: np.ndarray, distance) -> dict[str, float]:
    measures = {"psnr": recon.psnr, "ssim": recon.ssim, "flicker": recon.flicker}
    if distance is not None:
        measures["lpips"] = distance
    return {name: float(measure(got[None], want[None])[0]) for name, measure in measures.items()}


class Reconstruction(NamedTuple):
    """What one video became: `got_THWC`, uint8; `whole_THWC`, made without tiles, or None; and its latents."""

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


def _autoencoder(keys: AutoencoderChoice) -> Autoencoder:
    if bool(keys.workdir) == bool(keys.weights):
        raise UserError(
            "say which autoencoder: --workdir=DIR of a finished run, or --config.autoencoder.weights=FILE", status=2
        )
    computes = dtype.named(keys.dtype, "autoencoder.dtype")
    if keys.workdir:
        refuse(keys, "autoencoder", ("workdir", "dtype"), "autoencoder.workdir has its own")
        trained = finished_run.read(keys.workdir).autoencoder
        if trained is None:
            raise UserError(f"{keys.workdir} trained no autoencoder: give --config.autoencoder.weights", status=2)
        leaves = load.of_checkpoint(Path(keys.workdir) / trained.checkpoints, trained.averaged)
        return Autoencoder(models.build(trained.config).clone(dtype=computes), _params(leaves))
    part = autoencoders.of_keys(keys, "autoencoder")
    return Autoencoder(part.module, _params(load.open_leaves(part.model, keys.weights, average=True)))


def _params(leaves: Leaves) -> Any:
    return jax.device_put(leaves.cast(np.float32).tree())


def _lpips(path: str):
    lpips_cfg = models.config("lpips")
    return recon.lpips(models.build(lpips_cfg), _params(load.open_leaves(lpips_cfg, path)))


class Clip(NamedTuple):
    """A video to reproduce: `video_THWC` holds pixels in [-1, 1], float32; fps is the rate of the kept frames."""

    name: str
    video_THWC: np.ndarray
    fps: float


def _clips(cfg: VideoKeys, workdir: str | None) -> Iterator[Clip]:
    source = _source(cfg.source, workdir)
    records = [record for record in source if int(record["num_frames"]) >= cfg.frames]
    if not records:
        raise UserError(f"no video has {cfg.frames} frames: lower --config.data.frames")
    if len(records) < len(source):
        print(f"{len(source) - len(records)} of {len(source)} videos are shorter than {cfg.frames} frames: left out")
    window = loader.Window(cfg.frames, cfg.height, cfg.width, fps_max=cfg.fps_max, exact=True)
    read = loader.ClipReader(records, window, bucketed.Readers(workers=1).of(records))
    return (_clip(read, n, cfg.fps_max) for n in range(min(cfg.limit or len(records), len(records))))


def _clip(read: loader.ClipReader, n: int, fps_max: float) -> Clip:
    example = read(n)
    record = read.source[example["index"]]
    rate = float(record["fps"]) or fps_max
    return Clip(Path(record["path"].decode()).stem, transforms.unit(example["video"]), rate / -(-rate // fps_max))


def _source(source: str | None, workdir: str | None) -> Sequence[Json]:
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
    several = path.is_dir() or path.suffix in (".csv", ".parquet")
    with Pool(Limits()) as pool:
        looked = pool.each(probe.look, list(tables.rows(path)) if several else [{"path": str(path)}])
    kept = [{**row, "video": row["path"], "path": row["path"].encode(), "text": b""} for row in looked if "fps" in row]
    if not kept:
        raise UserError(f"no video of {path} can be measured: {looked[0]['reason']}", status=2)
    return kept


def _latents(statistics: LatentStatistics, autoencoder: Autoencoder) -> Json:
    """Their statistics, and what the model's own constants would have to be for the latents to be normal."""
    module = autoencoder.module
    implied = module.cfg.scale_fields(module.latent_scale.corrected(*statistics.overall))
    return {**statistics.report(), "implied": implied}


def _mean_of(rows: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    def mean(values: list[float | None]) -> float | None:
        return float(np.mean(values)) if None not in values else None

    return {name: mean([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _describe(autoencoder: Autoencoder, cfg: AutoencoderChoice) -> str:
    return f"{models.family_of(autoencoder.module.cfg)} from {cfg.workdir or cfg.weights}"
