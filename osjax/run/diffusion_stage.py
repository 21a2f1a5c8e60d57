"""A stage of the video model: its encoders, its batches of latents, and the train step of its condition modes."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from osjax import models
from osjax.conditioning import build, modes, text
from osjax.errors import UserError
from osjax.models import lora
from osjax.ops.attention import attend
from osjax.parallel import host, sharding
from osjax.parallel import mesh as device_mesh
from osjax.run import adapters, autoencoders, features, model_folder, stage, text_encoders, train_data
from osjax.run.config import to_dataclass
from osjax.run.diffusion_work import throughput
from osjax.run.encoders import Encoders
from osjax.run.place import Place
from osjax.sampling.autoencoder import Autoencoder
from osjax.sampling.pipeline import Pipeline
from osjax.sampling.settings import SampleSettings
from osjax.sampling.write import write_samples
from osjax.training import diffusion, state
from osjax.types import LatentBatch


class DiffusionStage:
    """Made from a config, it has checked whatever can be checked without data or weights; `train` does the work."""

    def __init__(self, name: str, cfg: ConfigDict, place: Place, stages: Mapping[str, ConfigDict]):
        self.name, self.cfg, self.place = name, cfg, place
        self.mesh = device_mesh.make(**cfg.mesh)
        self.model_cfg = to_dataclass(models.config_class("mmdit"), cfg.model, "model")
        self.ae_cfg = autoencoders.config_of(cfg.autoencoder, stages)
        self.module = models.build(self.ae_cfg)
        freeze = stage.optimizer_config(cfg, self.model_cfg).freeze
        self.trained = freeze.share(models.abstract_params(self.model_cfg))
        self.lora = self._adapters(stages)
        self.text_of = check_text(cfg.text)
        self.dropout = cfg.text_dropout.t5, cfg.text_dropout.clip
        multiple = self.module.stride.space * self.model_cfg.patch_size
        self.table = train_data.bucket_table(cfg.data, multiple, self.mesh)
        self._check_sizes()

    def _adapters(self, stages: Mapping[str, ConfigDict]) -> lora.LoRAConfig | None:
        cfg, start = self.cfg, self.cfg.start
        if start.stage and stages[start.stage].kind == "diffusion" and stages[start.stage].lora.rank:
            raise UserError(f"start.stage {start.stage!r} trained adapters: start from its model, with lora.start")
        found = adapters.of_config(cfg.lora, self.model_cfg)
        if found is not None and bool(start.stage) == bool(start.weights):
            raise UserError("lora adapts a trained model: give one of start.stage and start.weights", status=2)
        if found is not None and cfg.freeze.params:
            raise UserError("lora freezes the whole model: leave freeze.params empty, choose lora.targets", status=2)
        return found

    def _check_sizes(self) -> None:
        tokens = self.ae_cfg.latent_channels * self.model_cfg.patch_size**2
        if self.model_cfg.in_channels != tokens:
            raise UserError(
                f"model.in_channels {self.model_cfg.in_channels} does not fit the autoencoder's "
                f"{self.ae_cfg.latent_channels} latent channels * patch_size ** 2: set it to {tokens}"
            )
        if self.cfg.autoencoder.at_once < 0:
            raise UserError("autoencoder.at_once is below 0: give a number of clips, or 0 for all", status=2)
        stride = self.module.stride
        for _, T, H, W, _ in self.table.every_shape():  # also names sizes that the stride does not divide
            T_latent, *size = self.module.latent_shape(T, H, W)
            modes.usable_weights(dict(self.cfg.modes), T_latent, stride.causal, stride.time)
            if any(side % self.model_cfg.patch_size for side in size):
                raise UserError(
                    f"latents of {size[0]}x{size[1]} do not divide into patches of {self.model_cfg.patch_size}"
                )

        sample = to_dataclass(SampleSettings, self.cfg.sample, "sample")
        if sample.height and sample.width:
            self.module.latent_shape(sample.frames, sample.height, sample.width)

    def parameters(self) -> int:
        return stage.count_parameters(self.model_cfg)

    def check_devices(self) -> None:
        """UserError where the model's attention cannot run on the devices of the mesh."""
        cfg, sizes = self.model_cfg, self.mesh.shape
        rows, tokens = sizes["data"] * sizes["fsdp"], sizes["sequence"]
        x_BShd = jax.ShapeDtypeStruct((rows, tokens, cfg.num_heads, cfg.hidden_size // cfg.num_heads), cfg.dtype)
        with sharding.under(self.mesh):
            try:
                jax.eval_shape(partial(attend, impl=cfg.attention, kernel=cfg.attention_kernel), *[x_BShd] * 3)
            except UserError as error:
                raise UserError(f"{self.name}: {error}", status=2) from error

    def train(self, own: train_data.OwnData, options: stage.Options) -> None:
        encoders: list[Encoders] = []  # read once, and not at all for a finished stage

        def read() -> Encoders:
            if not encoders:
                encoders.append(self._encoders())
            return encoders[0]

        def batches() -> train_data.Batches:
            return self._batches(train_data.training_source(self.cfg.data, own), read())

        stage.train(
            self.name,
            self.cfg,
            self.place,
            self.mesh,
            self.model_cfg,
            lambda module, tx, opt: diffusion.make_step(module, tx, opt, self._prepare(read(), *self.dropout)),
            batches,
            options,
            evaluate=self._evaluation(own, read) if self.cfg.evaluate.every else None,
            lora=self.lora,
            throughput=throughput(self.model_cfg, 0.0 if self.lora else self.trained, self.mesh),
        )

    def encode(self, own: train_data.OwnData) -> features.Features:
        """The features of the stage's clips on disk; made where they are not there yet."""
        source = train_data.training_source(self.cfg.data, own)
        return features.make(self._cache, self._clips(source), self._encoders(), self.mesh, self.cfg.data.threads)

    def _encoders(self) -> Encoders:
        def read() -> Autoencoder:
            return autoencoders.read(self.cfg.autoencoder, self.ae_cfg, self.place, self.mesh)

        states = "bfloat16" if self.cfg.text.t5 else "float32"  # as T5 computes
        modes_of, at_once = dict(self.cfg.modes), self.cfg.autoencoder.at_once
        return Encoders(self.module, read, self.text_of(), states, self.mesh, modes_of, at_once)

    @property
    def _cache(self) -> Path:
        return Path(self.cfg.data.features or self.place.workdir / "latents")

    def _clips(self, source: train_data.Source) -> features.Clips:
        made_by = {"autoencoder": autoencoders.fingerprint(self.cfg.autoencoder, self.ae_cfg, self.place)}
        if self.cfg.data.cached_text:
            made_by["text"] = text_fingerprint(self.cfg.text)
        plan = train_data.plan(source, self.table, self.cfg.seed)
        return features.Clips(
            source, plan, self.table, made_by, self._encoders().cached_shapes, self.cfg.data.state_fps
        )

    def _batches(self, source: train_data.Source, encoders: Encoders) -> train_data.Batches:
        cfg = self.cfg.data
        if not cfg.cached:
            rows = train_data.video_batches(source, self.table, cfg, self.cfg.seed)
            return train_data.Mapped(rows, encoders.of_videos)
        clips = self._clips(source)
        if cfg.features:  # made by `osjax encode`: too much work to begin it here unasked
            found = features.find(self._cache, clips)
        else:
            found = features.make(self._cache, clips, encoders, self.mesh, cfg.threads)
        if found.null is not None:
            encoders.null = found.null
        return train_data.Mapped(found.batches(cfg.threads), encoders.of_cached)

    def _prepare(self, encoders: Encoders, drop_t5: float, drop_clip: float) -> diffusion.Prepare:
        """Inside the step: draw a condition mode per clip and drop text."""
        null_txt, null_vec = encoders.null
        stride, weights = self.module.stride, dict(self.cfg.modes)

        def prepare(batch, key) -> LatentBatch:
            key_mode, key_text = jax.random.split(key)
            B, *shape = batch["latents"].shape
            cond = None
            if self.model_cfg.cond_embed:
                mode_B = build.draw_modes(key_mode, weights, B, shape[0], stride.causal, stride.time)
                cond = build.condition(mode_B, batch["references"], tuple(shape), stride.causal, stride.time)
            txt, vec = text.drop_text(key_text, batch["txt"], batch["vec"], null_txt, null_vec, drop_t5, drop_clip)
            return LatentBatch(batch["latents"], txt, vec, cond)

        return prepare

    def _evaluation(self, own: train_data.OwnData, read: Callable[[], Encoders]):
        """The flow loss on the same held-out batches, noise and times every time."""
        held: list[Any] = []

        @jax.jit
        def losses(params: Any, batch: Any, key: jax.Array) -> jax.Array:
            prepare = self._prepare(read(), 0.0, 0.0)
            return diffusion.make_evaluation(models.build(self.model_cfg), prepare)(params, batch, key)

        def evaluate(now: state.TrainState) -> dict[str, float]:
            if not held:
                source = train_data.held_out_source(self.cfg.data, own)
                rows = train_data.video_batches(source, self.table, self.cfg.data, self.cfg.seed)
                found = train_data.Mapped(rows, read().of_videos)
                held.extend(host.to_global(next(found), self.mesh) for _ in range(self.cfg.evaluate.batches))
            params = now.best()
            key = sharding.random_key(self.cfg.seed, self.mesh)
            with sharding.under(self.mesh):
                found = np.mean([jax.device_get(losses(params, batch, key)) for batch in held], axis=0)
            self._sample(params, now, read())
            by_time = {f"eval_loss_t{t}": float(value) for t, value in zip(diffusion.TIMES, found, strict=True)}
            return {"eval_loss": float(found.mean()), **by_time}

        return evaluate

    def _sample(self, params: Any, now: state.TrainState, encoders: Encoders) -> None:
        """Videos of the config's prompts, to look at, named by the step."""
        prompts = list(self.cfg.evaluate.prompts)
        if not prompts:
            return
        settings = SampleSettings(**self.cfg.sample)
        mesh = self.mesh if self.mesh.size > 1 else None
        pipe = Pipeline(
            models.build(self.model_cfg), lora.merged(params), encoders.autoencoder, encoders.text, mesh=mesh
        )
        made = pipe(prompts, settings=settings)
        if jax.process_index() == 0:
            folder = self.place.workdir / "samples" / self.name / f"step-{int(now.step):07d}"
            write_samples(folder, made.videos_BTHWC, prompts, made.settings, settings.fps)


def check_text(cfg: ConfigDict) -> Callable[[], Any]:
    """What gives the text encoder of a `text` group; UserError for half a pair of folders."""
    if bool(cfg.t5) != bool(cfg.clip):
        raise UserError("text.t5 and text.clip belong together: give both folders, or neither", status=2)
    if cfg.t5:
        return lambda: text_encoders.load(cfg.t5, cfg.clip, mesh=_of_this_host())
    encoder = text.TextEncoder(cfg.width, cfg.max_length)
    return lambda: encoder


def _of_this_host() -> Mesh | None:
    """Every host encodes the texts of its own rows, with the weights split over its devices."""
    devices = jax.local_devices()
    return device_mesh.make(data=1, fsdp=len(devices), devices=devices) if len(devices) > 1 else None


def text_fingerprint(cfg: ConfigDict) -> str:
    """Of the text encoder of a `text` group."""
    if cfg.t5:
        return model_folder.fingerprint(cfg.t5, cfg.clip)
    return repr(text.TextEncoder(cfg.width, cfg.max_length))
