"""`osjax demo`: the whole curriculum on small procedural clips, from MP4 files to a report.

Each part writes its result under the workdir and is skipped when it is there, so an interrupted demo goes on.
"""

import functools
import json
import logging
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from osjax import models
from osjax.conditioning import build, text
from osjax.curation.probe import probe
from osjax.data import bucketed, buckets, cache, clips, dataset, loader, schedule, video
from osjax.errors import UserError
from osjax.evals import prompt_match
from osjax.evals.recon import psnr
from osjax.models.autoencoder import LatentScale
from osjax.parallel import host, rules
from osjax.parallel import mesh as device_mesh
from osjax.run import demo_report
from osjax.run.config import to_dataclass
from osjax.run.stage import Stage, Trained, train
from osjax.sampling import workdir
from osjax.sampling.pipeline import Autoencoder, Pipeline, SampleSettings, to_float, to_uint8
from osjax.sampling.write import write_samples
from osjax.training import autoencoder as ae_step
from osjax.training import diffusion
from osjax.training.optimizer import OptimizerConfig
from osjax.types import LatentBatch, VideoBatch

log = logging.getLogger(__name__)
ENCODE_BATCH = 16  # clips at once through the autoencoder


def add_options(parser) -> None:
    """No flags of its own: everything is a key of the config."""


def run(cfg: ConfigDict, args) -> None:
    started = time.monotonic()
    host.keep_freed_memory()
    demo = Demo(cfg)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    demo.workdir.mkdir(parents=True, exist_ok=True)
    spent = Stopwatch(demo.workdir / "seconds.json", started)
    sources = demo.make_data()
    spent.mark("data")
    autoencoder, trained = demo.train_autoencoder(sources)
    spent.mark("autoencoder")
    stages = {"autoencoder": trained}
    params = None
    for name, stage_cfg in sorted(cfg.stages.items()):
        resolution = stage_cfg.resolution
        features = demo.encode(sources["train"], autoencoder, resolution)
        stages[name] = demo.train_stage(name, stage_cfg, features, autoencoder, params)
        params = stages[name].params
        spent.mark(name)
    demo.describe(name, autoencoder.scale)
    demo.report(autoencoder, params, stages, spent)


class Stopwatch:
    """Seconds spent on each part, over all the runs that it took."""

    def __init__(self, path: Path, started: float):
        self.path, self.last = path, started
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def mark(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now
        self.path.write_text(json.dumps(self.seconds))

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Mapped:
    """Batches of another iterator, each changed by `change`."""

    batches: Any
    change: Any

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        return self.change(next(self.batches))

    def get_state(self):
        return self.batches.get_state()

    def set_state(self, state) -> None:
        self.batches.set_state(state)


class Demo:
    """The parts of the demo, from one config."""

    def __init__(self, cfg: ConfigDict):
        self.cfg = cfg
        self.workdir = Path(cfg.workdir)
        self.mesh = device_mesh.make(**cfg.mesh)
        self.ae_cfg = to_dataclass(models.config_class("dcae"), cfg.autoencoder.model, "autoencoder.model")
        self.model_cfg = to_dataclass(models.config_class("mmdit"), cfg.model, "model")
        self.text = to_dataclass(text.TextEncoder, cfg.text, "text")
        self.train_combinations, held_out = clips.split(cfg.seed)
        self.held_out = clips.specs(cfg.data.held_out_clips, cfg.seed + 1, held_out)
        self.config = json.loads(cfg.to_json_best_effort())
        module = models.build(self.ae_cfg)
        for resolution in ("low", "high"):  # a size that does not fit is an error now, not after ten minutes
            module.latent_shape(cfg.data.frames, cfg.data[resolution], cfg.data[resolution])
        if self.model_cfg.in_channels != self.ae_cfg.latent_channels * self.model_cfg.patch_size**2:
            raise UserError(
                f"model.in_channels {self.model_cfg.in_channels} does not fit autoencoder.model.latent_channels "
                f"{self.ae_cfg.latent_channels} * patch_size ** 2: set it to "
                f"{self.ae_cfg.latent_channels * self.model_cfg.patch_size**2}"
            )
        unknown = [s.resolution for s in cfg.stages.values() if s.resolution not in ("low", "high")]
        if unknown:
            raise UserError(f"stage resolution {unknown[0]!r} is not one of low, high")

    # Data

    def make_data(self) -> dict[str, Any]:
        """MP4 files and CSV tables, probed and built into TFDS data sets, for training and held-out clips."""
        cfg = self.cfg.data
        train_specs = clips.specs(cfg.train_clips, self.cfg.seed, self.train_combinations)
        return {"train": self._dataset("train", train_specs), "held_out": self._dataset("held_out", self.held_out)}

    def _dataset(self, name: str, specs: list[clips.ClipSpec]):
        cfg, folder = self.cfg.data, self.workdir / "data" / name
        done = folder / "done.json"  # written last; holds what the data was made from
        made_from = {"clips": len(specs), "frames": cfg.frames, "size": cfg.size, "fps": cfg.fps, "seed": self.cfg.seed}
        if done.exists():
            found = json.loads(done.read_text())
            if found["made_from"] != made_from:
                raise UserError(f"{folder} was made with other data settings: use another --config.workdir")
            return dataset.open_source(folder / found["data_set"])
        table = clips.write_clips(folder / "mp4", specs, cfg.size, cfg.frames, cfg.fps)
        kept = probe(table, min_frames=cfg.frames).kept
        path = dataset.build_clips(kept, folder)
        done.write_text(json.dumps({"made_from": made_from, "data_set": str(path.relative_to(folder))}))
        return dataset.open_source(path)

    # Autoencoder

    def train_autoencoder(self, sources) -> tuple[Autoencoder, Trained]:
        """The small Video DC-AE, and the scale that brings its latents to zero mean and unit variance per channel."""
        cfg = self.cfg.autoencoder
        batches = self._bucketed(sources["train"], self.cfg.data.high, cfg.batch)
        losses = {name: cfg[name] for name in ("mse_weight", "image_weight", "crop")}
        trained = train(
            Stage("autoencoder", cfg.steps, self._optimizer(cfg, "autoencoder"), save_every=200),
            self.ae_cfg,
            functools.partial(ae_step.make_step, **losses),
            Mapped(batches, lambda batch: VideoBatch(batch["video"])),
            self.mesh,
            self.workdir,
            self.cfg.seed,
            self.config["autoencoder"],
            rules.AUTOENCODER,
        )
        bare = Autoencoder(models.build(self.ae_cfg), trained.params)
        return Autoencoder(bare.module, bare.params, self._latent_scale(bare, sources["train"])), trained

    def _bucketed(self, source, size: int, batch: int) -> loader.BatchIterator:
        """Videos of the buckets near size x size pixels, in the shape that is nearest to each clip's own."""
        rules = {f"{size}px": {self.cfg.data.frames: buckets.Rule(keep=1.0, batch_size=batch)}}
        table = buckets.Buckets(rules, self.ae_cfg.spatial_compression_ratio, self.cfg.data.fps)
        about = [tuple(record[name] for name in ("num_frames", "height", "width", "fps")) for record in source]
        members = table.group(about, self.cfg.seed)
        left_out = len(source) - sum(map(len, members.values()))
        if left_out:
            log.warning("%d of %d clips fit no bucket of %dpx and are left out", left_out, len(source), size)
        plan = schedule.plan(members, {bucket: table.batch_size(bucket) for bucket in members}, self.cfg.seed)
        return bucketed.batches(source, plan, table.shape, fps_max=table.fps_max)

    def _latent_scale(self, bare: Autoencoder, source) -> LatentScale:
        path = self.workdir / "autoencoder" / "latent_scale.json"
        if not path.exists():
            size = self.cfg.data.low
            count = min(len(source), 256)
            latents = np.concatenate([np.asarray(bare.encode(v)) for v, _ in self._videos(source, size, count)])
            axes = tuple(range(latents.ndim - 1))
            std, mean = latents.std(axes), latents.mean(axes)
            path.write_text(json.dumps({"scale": (1 / np.maximum(std, 1e-6)).tolist(), "shift": mean.tolist()}))
        values = json.loads(path.read_text())
        return LatentScale(np.array(values["scale"], np.float32), np.array(values["shift"], np.float32))

    def _videos(self, source, size: int, count: int | None = None, label: str | None = None):
        """(float32 videos, captions) of up to ENCODE_BATCH clips, in the order of the data set."""
        reader = loader.ClipReader(source, self.cfg.data.frames, size, size)
        count = len(source) if count is None else count
        starts = range(0, count, ENCODE_BATCH)
        for start in tqdm(starts, desc=label, unit="batch", mininterval=1) if label else starts:
            examples = [reader(i) for i in range(start, min(start + ENCODE_BATCH, count))]
            yield np.stack([e["video"] for e in examples]), [e["text"] for e in examples]

    def encode(self, source, autoencoder: Autoencoder, resolution: str):
        """Latents of every training clip and of its end frames as a data set; made once per resolution."""
        size, folder = self.cfg.data[resolution], self.workdir / "latents" / resolution
        done = folder / "done.json"
        if not done.exists():

            def examples():
                for videos, captions in self._videos(source, size, label=f"encode {size}px"):
                    short = ENCODE_BATCH - len(videos)
                    full = np.concatenate([videos, np.repeat(videos[-1:], short, 0)])
                    found = [np.asarray(autoencoder.encode(x)) for x in (full, full[:, :1], full[:, -1:])]
                    for latents, head, tail, caption in zip(*found, captions, strict=False):
                        yield {"latents": latents, "head": head, "tail": tail, "text": caption}

            shape = autoencoder.latent_shape(self.cfg.data.frames, size, size)
            path = cache.write_features(folder, shape, examples)
            done.write_text(json.dumps({"data_set": str(path.relative_to(folder))}))
        return dataset.open_source(folder / json.loads(done.read_text())["data_set"])

    # Diffusion stages

    def train_stage(self, name: str, cfg: ConfigDict, features, autoencoder: Autoencoder, init_from) -> Trained:
        """One stage of the curriculum, started from the averaged weights of the one before."""
        batches = loader.batches(len(features), loader.read_features(features), cfg.batch, self.cfg.seed)
        prepare = self._prepare(dict(cfg.modes), autoencoder)
        return train(
            Stage(name, cfg.steps, self._optimizer(cfg, f"stages.{name}"), save_every=200, init_from=init_from),
            self.model_cfg,
            functools.partial(diffusion.make_step, prepare=prepare),
            Mapped(batches, self._with_text),
            self.mesh,
            self.workdir,
            self.cfg.seed,
            self.config["stages"][name],
        )

    def _optimizer(self, cfg: ConfigDict, name: str) -> OptimizerConfig:
        return to_dataclass(OptimizerConfig, cfg.optimizer, f"{name}.optimizer")

    def _with_text(self, batch: dict[str, Any]) -> dict[str, Any]:
        txt, vec = self.text.encode_batch([str(t) for t in batch["text"]])
        return {"txt": txt, "vec": vec, **{k: batch[k] for k in ("latents", "head", "tail")}}

    def _prepare(self, modes: dict[str, float], autoencoder: Autoencoder):
        """Inside the step: draw a condition mode per clip and drop text."""
        null_txt, null_vec = (x[None] for x in self.text.encode(""))
        causal, compression, drop = autoencoder.causal, autoencoder.time_compression, self.cfg.text_dropout

        def prepare(batch, key) -> LatentBatch:
            key_mode, key_text = jax.random.split(key)
            B, *shape = batch["latents"].shape
            mode_B = build.draw_modes(key_mode, modes, B, shape[0], causal, compression)
            references = {"head_image": batch["head"], "tail_image": batch["tail"]}
            cond = build.condition(mode_B, references, tuple(shape), causal, compression)
            txt, vec = text.drop_text(key_text, batch["txt"], batch["vec"], null_txt, null_vec, drop, drop)
            return LatentBatch(batch["latents"], txt, vec, cond)

        return prepare

    # Samples and report

    def _sample_settings(self) -> dict[str, Any]:
        data, cfg = self.cfg.data, self.cfg.sample
        return {
            "frames": data.frames,
            "height": data.high,
            "width": data.high,
            "steps": cfg.steps,
            "guidance": cfg.guidance,
            "guidance_img": cfg.guidance_img,
            "text_oscillation": False,
            "image_oscillation": False,
            "image_ramp": False,
            "seed": self.cfg.seed,
        }

    def describe(self, last_stage: str, scale: LatentScale) -> None:
        """Write down what was trained, so that `osjax sample` finds it."""
        kept = {
            name: workdir.TrainedModel(model, f"{stage}/checkpoints", averaged=ema > 0)
            for name, model, stage, ema in (
                ("denoiser", self.model_cfg, last_stage, self.cfg.stages[last_stage].optimizer.ema_decay),
                ("autoencoder", self.ae_cfg, "autoencoder", self.cfg.autoencoder.optimizer.ema_decay),
            )
        }
        settings = {k: v for k, v in self._sample_settings().items() if k != "seed"}
        workdir.save(self.workdir, workdir.Workdir(**kept, text=self.text, latent_scale=scale, settings=settings))

    def report(self, autoencoder: Autoencoder, params, stages: dict[str, Trained], spent: Stopwatch) -> None:
        """Sample held-out prompts and given first frames with the final weights, measure, and write the report."""
        cfg = self.cfg.sample
        pipe = Pipeline(models.build(self.model_cfg), params, autoencoder, self.text)
        settings = SampleSettings(**self._sample_settings())
        specs = [self.held_out[i % len(self.held_out)] for i in range(cfg.prompts)]
        real = np.stack([clips.render(s, self.cfg.data.high, self.cfg.data.frames) for s in self.held_out])
        common = {"settings": settings, "batch_size": cfg.batch}
        seeds = range(self.cfg.seed, self.cfg.seed + cfg.prompts)  # or all prompts would start from one noise
        t2v = pipe([s.caption for s in specs], seeds=seeds, progress=_bar("sample t2v"), **common)
        i2v_specs = self.held_out[: cfg.i2v]
        first = real[: cfg.i2v, :1]
        i2v = pipe(
            [s.caption for s in i2v_specs],
            refs=first,
            seeds=seeds[: cfg.i2v],
            mode="i2v_head",
            guidance=cfg.i2v_guidance,
            progress=_bar("sample i2v"),
            **common,
        )

        fps, folder = self.cfg.data.fps, self.workdir / "samples"
        files = write_samples(folder / "t2v", t2v.videos_BTHWC, [s.caption for s in specs], t2v.settings, fps)
        i2v_files = write_samples(folder / "i2v", i2v.videos_BTHWC, [s.caption for s in i2v_specs], i2v.settings, fps)
        # Judged on what a viewer gets: the MP4 files, decoded again.
        match = prompt_match.score([video.decode(f) for f in files], specs)
        first_frames = np.stack([video.decode(f, 1) for f in i2v_files])

        rebuilt = np.concatenate([to_uint8(autoencoder.decode(autoencoder.encode(v))) for v in _in_batches(real)])
        spent.mark("samples")
        result = {
            "prompt_match": match,
            "ae_psnr_db": float(psnr(rebuilt, real).mean()),
            "i2v_first_frame_psnr_db": float(psnr(first_frames, first).mean()),
            "i2v_prompt_match": prompt_match.score([video.decode(f) for f in i2v_files], i2v_specs),
            "seconds": spent.total,
            "seconds_by_part": spent.seconds,
            "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "stages": [
                {
                    "name": name,
                    "steps": len(stage.lines),
                    "final_loss": float(np.mean([line["loss"] for line in stage.lines[-50:]])),
                    "seconds": spent.seconds.get(name, stage.seconds),
                }
                for name, stage in stages.items()
            ],
        }
        self._write_report(result, stages, t2v, i2v, specs, i2v_specs, first, files, i2v_files)

    def _write_report(self, result, stages, t2v, i2v, specs, i2v_specs, first, files, i2v_files) -> None:
        folder = self.workdir
        shown = list(t2v.videos_BTHWC[:12])
        demo_report.contact_sheet(folder / "contact_sheet.png", shown, [s.caption for s in specs[:12]])
        given = [np.concatenate([f, v]) for f, v in zip(first[:6], i2v.videos_BTHWC[:6], strict=True)]
        captions = [f"given frame, then: {s.caption}" for s in i2v_specs[:6]]
        demo_report.contact_sheet(folder / "contact_sheet_i2v.png", given, captions)
        demo_report.plots(folder / "training.png", {name: stage.lines for name, stage in stages.items()})
        demo_report.write_json(folder / "report.json", result)
        pictures = {
            "Held-out prompts": "contact_sheet.png",
            "From a given first frame": "contact_sheet_i2v.png",
            "Training": "training.png",
        }
        pairs = zip([*specs[:8], *i2v_specs[:4]], [*files[:8], *i2v_files[:4]], strict=True)
        videos = [(spec.caption, str(file.relative_to(folder))) for spec, file in pairs]
        demo_report.write_html(folder / "report.html", result, pictures, videos)
        match = result["prompt_match"]
        print(
            f"held-out prompts: colour {match['colour']:.1%}, direction {match['direction']:.1%}, shape "
            f"{match['shape']:.1%}; autoencoder {result['ae_psnr_db']:.1f} dB; first frame "
            f"{result['i2v_first_frame_psnr_db']:.1f} dB; {result['seconds'] / 60:.1f} min"
            f"\nsee {folder / 'report.html'}"
        )


def _in_batches(videos_uint8: np.ndarray) -> Iterator[jax.Array]:
    for start in range(0, len(videos_uint8), ENCODE_BATCH):
        yield jnp.asarray(to_float(videos_uint8[start : start + ENCODE_BATCH]))


def _bar(label: str):
    return lambda items: tqdm(items, desc=label, unit="batch", mininterval=1)
