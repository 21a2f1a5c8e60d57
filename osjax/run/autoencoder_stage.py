"""A stage of the Video DC-AE, reconstruction or adversarial: its losses, its evaluation, its latents' statistics."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from osjax import models
from osjax.data import loader
from osjax.errors import UserError
from osjax.parallel import host, rules, sharding
from osjax.parallel import mesh as device_mesh
from osjax.run import adversary, autoencoders, lpips, stage, train_data
from osjax.run.config import to_dataclass
from osjax.sampling.autoencoder import Autoencoder
from osjax.training import ae_losses, gan
from osjax.training import autoencoder as ae_step
from osjax.training.autoencoder import AutoencoderState
from osjax.types import VideoBatch

log = logging.getLogger(__name__)
AT_ONCE = 16  # clips through the encoder for its statistics


class AutoencoderStage:
    """Made from a config, it has checked whatever can be checked without data or weights; `train` does the work."""

    def __init__(self, name: str, cfg: ConfigDict, place: stage.Place, stages: Mapping[str, ConfigDict]):
        self.name, self.cfg, self.place = name, cfg, place
        self.mesh = device_mesh.make(**cfg.mesh)
        self.model_cfg = to_dataclass(models.config_class(cfg.family), cfg.model, "model")
        dtype = jnp.dtype(cfg.dtype)
        self.module = models.build(self.model_cfg).clone(dtype=dtype, remat=cfg.remat)
        accumulate = stage.optimizer_config(cfg, self.model_cfg).accumulate
        self.distance = lpips.of_config(cfg.lpips, bool(cfg.losses.perceptual_weight), dtype, cfg.remat)
        self.phase = adversary.of_config(cfg.adversary, cfg.losses, accumulate, dtype)
        self.table = train_data.bucket_table(cfg.data, self.module.stride.space, self.mesh)
        for _, T, H, W, _ in self.table.every_shape():
            self.module.latent_shape(T, H, W)
        if not 0 <= cfg.data.image_ratio <= 1:
            raise UserError(f"data.image_ratio is {cfg.data.image_ratio}: give a share from 0 to 1", status=2)
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

        stage.train(
            self.name,
            cfg,
            self.place,
            self.mesh,
            self.model_cfg,
            self._make_step,
            batches,
            options,
            evaluate=self._evaluation(own) if cfg.evaluate.every else None,
            axis_rules=rules.AUTOENCODER,
            create=self._create,
            fill=self._fill,
        )
        if cfg.latent_statistics.clips:
            self._measure(own)

    def _create(self, init_params: Any, tx: Any, with_ema: bool, freeze: Any) -> AutoencoderState:
        perceptual = self.distance and self.distance.blank()
        if self.phase is None:
            return ae_step.create(init_params, tx, with_ema, freeze, perceptual)
        critic = self.phase.init(self.cfg.seed)
        return gan.create(init_params(), critic, perceptual, tx, self.phase.tx, with_ema, freeze)

    def _fill(self, now: AutoencoderState, shardings: Any) -> AutoencoderState:
        return now.replace(perceptual=self.distance.read(shardings.perceptual)) if self.distance else now

    def _make_step(self, _: Any, tx: Any, adam: Any) -> Any:
        cfg, distance = self.cfg, self.distance and self.distance.module
        if self.phase is None:
            return ae_step.make_step(self.module, tx, adam, **cfg.losses, lpips=distance)
        modules, phase = gan.Models(self.module, self.phase.module, distance), self.phase
        return gan.make_step(modules, tx, phase.tx, phase.losses, adam, phase.adam, cfg.losses.crop)

    def _evaluation(self, own: train_data.OwnData):
        """L1, PSNR and, where the stage has one, LPIPS of held-out clips."""
        held: list[Any] = []

        @jax.jit
        def errors(params: Any, perceptual: Any, video: jax.Array) -> tuple[jax.Array, ...]:
            got = self.module.apply({"params": params}, video)
            found = ae_losses.l1(got, video), ae_losses.mse(got, video)
            if self.distance is None:
                return found
            return *found, self.distance.module.apply({"params": perceptual}, video, got).mean()

        def evaluate(now: AutoencoderState) -> dict[str, float]:
            if not held:
                source = train_data.held_out_source(self.cfg.data, own)
                rows = train_data.video_batches(source, self.table, self.cfg.data, self.cfg.seed)
                held.extend(host.to_global(next(rows)["video"], self.mesh) for _ in range(self.cfg.evaluate.batches))
            params = now.best()
            with sharding.under(self.mesh, rules.AUTOENCODER):
                found = [jax.device_get(errors(params, now.perceptual, video)) for video in held]
            l1, mse, *distance = map(float, np.mean(found, axis=0))
            measured = {"eval_l1": l1, "eval_psnr_db": 10 * math.log10(4 / mse)}
            return measured | ({self.distance.name: distance[0]} if distance else {})

        return evaluate

    def _measure(self, own: train_data.OwnData) -> None:
        """Scale and shift of the latents, from the first clips of the training data; kept beside the checkpoints."""
        folder = self.place.workdir / self.name
        if (folder / autoencoders.SCALE_FILE).exists():
            return
        asked = self.cfg.latent_statistics
        shape = self._shape_of(asked.resolution)
        source = train_data.training_source(self.cfg.data, own)
        reader = loader.ClipReader(source, *shape, fps_max=self.cfg.data.fps_max)
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
