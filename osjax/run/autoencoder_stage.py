"""A stage of the Video DC-AE, reconstruction or adversarial: its losses, its evaluation, its latents' statistics."""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from osjax import models
from osjax.data import loader
from osjax.errors import UserError
from osjax.parallel import mesh as device_mesh
from osjax.parallel import rules
from osjax.run import adversary, autoencoders, lpips, stage, teacher, train_data
from osjax.run.config import to_dataclass
from osjax.run.held_out import HeldOut, report
from osjax.run.place import Place
from osjax.sampling.autoencoder import Autoencoder
from osjax.training import autoencoder as ae_step
from osjax.training import gan
from osjax.training.autoencoder import AutoencoderState
from osjax.types import VideoBatch

log = logging.getLogger(__name__)
AT_ONCE = 16  # clips through the encoder for its statistics


class AutoencoderStage:
    """Made from a config, it has checked whatever can be checked without data or weights; `train` does the work."""

    def __init__(self, name: str, cfg: ConfigDict, place: Place, stages: Mapping[str, ConfigDict]):
        self.name, self.cfg, self.place = name, cfg, place
        self.mesh = device_mesh.make(**cfg.mesh)
        self.model_cfg = to_dataclass(models.config_class(cfg.family), cfg.model, "model")
        dtype = jnp.dtype(cfg.dtype)
        self.module = models.build(self.model_cfg).clone(dtype=dtype, remat=cfg.remat)
        accumulate = stage.optimizer_config(cfg, self.model_cfg).accumulate
        self.distance = lpips.of_config(cfg.lpips, bool(cfg.losses.perceptual_weight), dtype, cfg.remat)
        self.teacher = None
        if cfg.losses.alignment_weight:
            self.teacher = teacher.of_config(cfg.dinov2, getattr(self.model_cfg, "encoder", None))
        self.phase = adversary.of_config(cfg.adversary, cfg.losses, accumulate, dtype)
        self.table = train_data.bucket_table(cfg.data, self.module.stride.space, self.mesh)
        for _, T, H, W, _ in self.table.every_shape():
            self.module.latent_shape(T, H, W)
        if not 0 <= cfg.data.image_ratio <= 1:
            raise UserError(f"data.image_ratio is {cfg.data.image_ratio}: give a share from 0 to 1", status=2)
        if cfg.latent_statistics.clips:
            self.measured = self._shape_of(cfg.latent_statistics.resolution)
        if cfg.data.cached:
            raise UserError("data.cached is for stages of the video model: an autoencoder learns from videos")

    def parameters(self) -> int:
        return stage.count_parameters(self.model_cfg)

    def train(self, own: train_data.OwnData, options: stage.Options) -> None:
        cfg = self.cfg

        def batches() -> train_data.Batches:
            source = train_data.training_source(cfg.data, own)
            rows = train_data.video_batches(source, self.table, cfg.data, cfg.seed)
            mixed = train_data.SomeImages(rows, cfg.data.image_ratio, cfg.seed)
            return train_data.Mapped(mixed, lambda batch: VideoBatch(batch["video"]))

        held_out = self._held_out(own)
        final = stage.train(
            self.name,
            cfg,
            self.place,
            self.mesh,
            self.model_cfg,
            self._make_step,
            batches,
            options,
            evaluate=held_out.of_state if cfg.evaluate.every else None,
            axis_rules=rules.AUTOENCODER,
            create=self._create,
            fill=self._fill,
        )
        if cfg.evaluate.every:
            report(self.name, self.place.workdir / self.name, final and held_out.of_state(final))
        if cfg.latent_statistics.clips:
            self._measure(own)

    def _create(self, init_params: Any, tx: Any, with_ema: bool, freeze: Any) -> AutoencoderState:
        perceptual = self.distance and self.distance.blank()
        if self.teacher:
            both = self.teacher.projection(self.cfg.seed), self.teacher.blank()
            return ae_step.create(init_params, tx, with_ema, freeze, perceptual, *both)
        if self.phase is None:
            return ae_step.create(init_params, tx, with_ema, freeze, perceptual)
        critic = self.phase.init(self.cfg.seed)
        return gan.create(init_params(), critic, perceptual, tx, self.phase.tx, with_ema, freeze)

    def _fill(self, now: AutoencoderState, shardings: Any) -> AutoencoderState:
        if self.distance:
            now = now.replace(perceptual=self.distance.read(shardings.perceptual))
        if self.teacher:
            read = self.teacher.read(shardings.alignment.teacher)
            now = now.replace(alignment=now.alignment.replace(teacher=read))
        return now

    def _make_step(self, _: Any, tx: Any, adam: Any) -> Any:
        cfg, distance = self.cfg, self.distance and self.distance.module
        if self.phase is None:
            teaching = self.teacher and self.teacher.teaching
            return ae_step.make_step(self.module, tx, adam, **cfg.losses, lpips=distance, teaching=teaching)
        modules, phase = gan.Models(self.module, self.phase.module, distance), self.phase
        return gan.make_step(modules, tx, phase.tx, phase.losses, adam, phase.adam, cfg.losses.crop)

    def _held_out(self, own: train_data.OwnData) -> HeldOut:
        cfg = self.cfg

        def batches() -> list[Any]:
            rows = train_data.video_batches(train_data.held_out_source(cfg.data, own), self.table, cfg.data, cfg.seed)
            return [next(rows)["video"] for _ in range(cfg.evaluate.batches)]

        return HeldOut(self.module, self.distance, self.mesh, batches)

    def _measure(self, own: train_data.OwnData) -> None:
        """Scale and shift of the latents, from the first clips of the training data; kept beside the checkpoints."""
        folder = self.place.workdir / self.name
        if (folder / autoencoders.SCALE_FILE).exists():
            return
        asked = self.cfg.latent_statistics
        source = train_data.training_source(self.cfg.data, own)
        reader = loader.ClipReader(source, loader.Window(*self.measured, fps_max=self.cfg.data.fps_max))
        mesh = device_mesh.make(devices=jax.local_devices()[:1])
        own_group = ConfigDict({"stage": self.name, "weights": None})
        bare: Autoencoder = autoencoders.read(own_group, self.model_cfg, self.place, mesh)
        found = []
        for start in range(0, min(asked.clips, len(source)), AT_ONCE):
            videos = [reader(i)["video"] for i in range(start, min(start + AT_ONCE, len(source)))]
            found.append(np.asarray(bare.encode(np.stack(videos))))
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            autoencoders.write_scale(folder, np.concatenate(found))

    def _shape_of(self, resolution: str) -> tuple[int, int, int]:
        """(frames, height, width) of the first video bucket of a resolution, or of all where none is asked for."""
        shapes = [
            (frames, *size)
            for name, by_frames in self.table.rules.items()
            if name == (resolution or name)
            for frames in by_frames
            for size in self.table.tables[name].values()
        ]
        square = [shape for shape in shapes if shape[1] == shape[2]]
        if not shapes:
            raise UserError(f"latent_statistics.resolution {resolution!r} is no resolution of data.buckets", status=2)
        return (square or shapes)[0]
