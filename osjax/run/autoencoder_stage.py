"""A stage of the Video DC-AE: batches of videos, its losses, and the statistics of its latents at the end."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from osjax import models
from osjax.data import loader
from osjax.errors import UserError
from osjax.parallel import host, rules, sharding
from osjax.parallel import mesh as device_mesh
from osjax.run import autoencoders, stage, train_data
from osjax.run.config import to_dataclass
from osjax.sampling.autoencoder import Autoencoder
from osjax.training import ae_losses
from osjax.training import autoencoder as ae_step
from osjax.training.state import TrainState
from osjax.types import VideoBatch

log = logging.getLogger(__name__)
AT_ONCE = 16  # clips through the encoder for its statistics


class AutoencoderStage:
    """Made from a config, it has checked whatever can be checked without data or weights; `train` does the work."""

    def __init__(self, name: str, cfg: ConfigDict, place: stage.Place, stages: Mapping[str, ConfigDict]):
        self.name, self.cfg, self.place = name, cfg, place
        self.mesh = device_mesh.make(**cfg.mesh)
        self.model_cfg = to_dataclass(models.config_class(cfg.family), cfg.model, "model")
        self.module = models.build(self.model_cfg)
        stage.optimizer_config(cfg, self.model_cfg)
        self.table = train_data.bucket_table(cfg.data, self.module.stride.space, self.mesh)
        for _, T, H, W, _ in self.table.every_shape():
            self.module.latent_shape(T, H, W)
        if cfg.data.cached:
            raise UserError("data.cached is for stages of the video model: an autoencoder learns from videos")

    def parameters(self) -> int:
        return stage.count_parameters(self.model_cfg)

    def train(self, own: train_data.OwnData, options: stage.Options) -> None:
        cfg = self.cfg

        def batches() -> train_data.Batches:
            source = train_data.training_source(cfg.data, own)
            rows = train_data.video_batches(source, self.table, cfg.data, cfg.seed)
            return train_data.Mapped(rows, lambda batch: VideoBatch(batch["video"]))

        stage.train(
            self.name,
            cfg,
            self.place,
            self.mesh,
            self.model_cfg,
            partial(ae_step.make_step, **cfg.losses),
            batches,
            options,
            evaluate=self._evaluation(own) if cfg.evaluate.every else None,
            axis_rules=rules.AUTOENCODER,
        )
        if cfg.latent_statistics.clips:
            self._measure(own)

    def _evaluation(self, own: train_data.OwnData):
        """L1 and PSNR of held-out clips."""
        held: list[Any] = []

        @jax.jit
        def errors(params: Any, video: jax.Array) -> tuple[jax.Array, jax.Array]:
            got = self.module.apply({"params": params}, video)
            return ae_losses.l1(got, video), ae_losses.mse(got, video)

        def evaluate(now: TrainState) -> dict[str, float]:
            if not held:
                source = train_data.held_out_source(self.cfg.data, own)
                rows = train_data.video_batches(source, self.table, self.cfg.data, self.cfg.seed)
                held.extend(host.to_global(next(rows)["video"], self.mesh) for _ in range(self.cfg.evaluate.batches))
            params = now.best()
            with sharding.under(self.mesh, rules.AUTOENCODER):
                l1, mse = np.mean([jax.device_get(errors(params, video)) for video in held], axis=0)
            return {"eval_l1": float(l1), "eval_psnr_db": float(10 * np.log10(4 / mse))}

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
