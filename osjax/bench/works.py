"""The programs that `osjax bench` measures: train step, model call, autoencoder and T5, with random weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from osjax import models
from osjax.bench.measure import Work
from osjax.models import velocity, video_flops
from osjax.ops import flops as flop_count
from osjax.parallel import rules, sharding
from osjax.parts import autoencoder as autoencoders
from osjax.parts import dtype as dtypes
from osjax.parts import video_model
from osjax.parts.bench import BenchKeys
from osjax.parts.diffusion import check_latent
from osjax.parts.groups import to_dataclass
from osjax.planning import program
from osjax.training import autoencoder, optimizer
from osjax.types import LatentBatch, ModelConfig, Tree, VideoBatch


@dataclass(frozen=True)
class Bench:
    """What a config asks for, checked. `works[name]()` gives a Work.

    blocks: of the velocity model, (double, single); its config says how many there are in all.
    """

    cfg: BenchKeys
    mesh: Mesh
    blocks: tuple[int, int]

    @classmethod
    def of(cls, cfg: BenchKeys, mesh: Mesh) -> "Bench":
        """The bench of a config on a mesh. Where the config names no number of blocks, the model has all of its own."""
        blocks = tuple(cfg.blocks) or (cfg.model["depth"], cfg.model["depth_single_blocks"])
        return cls(cfg, mesh, blocks)

    @property
    def works(self) -> dict[str, Callable[[], Work]]:
        sides = {side: partial(self._autoencoder, side) for side in ("encode", "decode")}
        steps = {"train": self.train, "denoise": self.denoise, "train_autoencoder": self.train_autoencoder}
        return {**steps, **sides, "t5": self.t5}

    def train(self) -> Work:
        """One update: noise, loss, gradients, AdamW. FLOPs: three forward passes, whatever is computed again."""
        model_cfg, opt = self._model(), self.cfg.optimizer
        step = program.train_step(model_cfg, opt, self.mesh, self._latents(model_cfg, self.cfg.train_batch))

        def inputs():
            key = sharding.random_key(self.cfg.seed, self.mesh)  # not before: its devices may only be compiled for
            fill = jax.jit(lambda params: step.create(lambda: params), out_shardings=step.shardings, donate_argnums=0)
            return fill(_random(step.state.params, self.cfg.seed)), _random(step.batch, 1), key

        flops, tokens = (
            3 * video_flops.forward_flops(model_cfg, step.batch),
            video_flops.tokens(model_cfg, step.batch),
        )
        return Work("train", self._says(step.batch), step.lower, inputs, flops, tokens, carries=True)

    def denoise(self) -> Work:
        """One call of the velocity model; `osjax sample --memory` says how many of them a sample takes."""
        model_cfg = replace(self._model(), dtype=str(dtypes.named(self.cfg.dtype, "dtype")))
        params = self._params(model_cfg, self.cfg.dtype)
        batch = self._latents(model_cfg, self.cfg.denoise_batch)
        times = jax.ShapeDtypeStruct(batch.y_vec_BC.shape[:1], jnp.float32, sharding=sharding.batch_sharding(self.mesh))
        call = jax.jit(partial(velocity.of_batch, models.build(model_cfg)))

        def lower():
            with sharding.under(self.mesh):
                return call.lower(params, batch, times)

        def inputs():
            return _random(params, self.cfg.seed), _random(batch, 1), _random(times, 2)

        flops = video_flops.forward_flops(model_cfg, batch)
        return Work("denoise", self._says(batch), lower, inputs, flops, video_flops.tokens(model_cfg, batch))

    def train_autoencoder(self) -> Work:
        """One update of the autoencoder by L1, on a whole video or one tile of it. FLOPs: three forward passes."""
        cfg, part, opt = self.cfg.autoencoder, self._autoencoder_part(), self.cfg.optimizer
        ae_cfg, module, tx = part.model, part.module, optimizer.make(opt)

        def create(params):
            return autoencoder.create(lambda: params, tx, opt.ema_decay > 0)

        boxed = jax.eval_shape(create, models.abstract_params(ae_cfg))
        shardings = sharding.of_boxed(boxed, self.mesh, rules.AUTOENCODER)
        state, B = program.placed(nn.unbox(boxed), shardings), cfg.batch * self._ways
        sizes, rows = (B, cfg.frames, cfg.size, cfg.size, 3), sharding.batch_sharding(self.mesh)
        batch = VideoBatch(jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=rows))
        step = sharding.jit_step(autoencoder.make_step(module, tx, opt), shardings, self.mesh, rules.AUTOENCODER)
        key = sharding.random_key(self.cfg.seed, self.mesh)

        def inputs():
            fill = jax.jit(create, out_shardings=shardings, donate_argnums=0)
            return fill(_random(state.params, self.cfg.seed)), _random(batch, 1), key

        T, H, W = module.latent_shape(cfg.frames, cfg.size, cfg.size)
        flops = 3 * flop_count.of_program(lambda p, x: module.apply({"params": p}, x), state.params, batch.video_BTHWC)
        says = f"{B} x {cfg.frames} frames of {cfg.size}x{cfg.size}"
        lower = partial(step.lower, state, batch, key)
        return Work("train_autoencoder", says, lower, inputs, flops, B * T * H * W, carries=True)

    def _autoencoder(self, method: str) -> Work:
        """Encode or decode one video, or one tile of it. Its tokens are latent pixels."""
        cfg = self.cfg.autoencoder
        ae_cfg = self._autoencoder_part().model
        module = models.build(ae_cfg)
        params = self._params(ae_cfg, cfg.dtype, rules.AUTOENCODER)
        T, H, W = module.latent_shape(cfg.frames, cfg.size, cfg.size)
        B = cfg.batch * self._ways
        sizes = (B, cfg.frames, cfg.size, cfg.size, 3) if method == "encode" else (B, T, H, W, ae_cfg.latent_channels)
        rows = sharding.batch_sharding(self.mesh)
        x = jax.ShapeDtypeStruct(sizes, cfg.dtype, sharding=rows)

        def run(params, x):
            return module.apply({"params": params}, x, method=method)

        def lower():
            with sharding.under(self.mesh, rules.AUTOENCODER):
                return jax.jit(run).lower(params, x)

        says = f"{B} x {cfg.frames} frames of {cfg.size}x{cfg.size}"
        flops = flop_count.of_program(run, params, x)
        return Work(method, says, lower, lambda: (_random(params, 0), _random(x, 1)), flops, B * T * H * W)

    def t5(self) -> Work:
        """The T5 encoder over a batch of whole prompts."""
        fields = {**self.cfg.t5.config, "dtype": self.cfg.dtype}
        t5_cfg = to_dataclass(models.config_class("t5"), fields, "t5.config")
        params = self._params(t5_cfg, self.cfg.dtype)
        module, shape = models.build(t5_cfg), (self.cfg.t5.batch * self._ways, self.cfg.text_tokens)
        ids = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding.batch_sharding(self.mesh))

        def run(params, ids):
            return module.apply({"params": params}, ids)

        def lower():
            with sharding.under(self.mesh):
                return jax.jit(run).lower(params, ids)

        def inputs():
            draw = np.random.default_rng(self.cfg.seed).integers(0, t5_cfg.vocab_size, shape, np.int32)
            return _random(params, 0), jax.device_put(draw, ids.sharding)

        flops = flop_count.of_program(run, params, ids)
        return Work("t5", f"{shape[0]} x {shape[1]} tokens", lower, inputs, flops, shape[0] * shape[1])

    @property
    def _ways(self) -> int:
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def _model(self) -> velocity.VideoConfig:
        double, single = self.blocks
        fields = {**self.cfg.model, "depth": double, "depth_single_blocks": single}
        return video_model.resolved(self.cfg.family, fields, "model", self.mesh)

    def _autoencoder_part(self) -> autoencoders.AutoencoderPart:
        return autoencoders.of_keys(self.cfg.autoencoder, "autoencoder")

    def _params(
        self, model_cfg: ModelConfig, dtype: str, axis_rules: Mapping[str, rules.MeshAxes] = rules.TRANSFORMER
    ) -> Any:
        """Shapes of parameters with their places on the mesh, in `dtype`."""
        boxed = models.abstract_params(model_cfg)
        return program.placed(nn.unbox(boxed), sharding.of_boxed(boxed, self.mesh, axis_rules), dtype)

    def _latents(self, model_cfg: velocity.VideoConfig, per_device: int) -> LatentBatch:
        """Shapes of the batch of a video of the config's size. UserError where its latents do not divide."""
        size, part = self.cfg.video, self._autoencoder_part()
        latent = (*part.module.latent_shape(size.frames, size.height, size.width), part.model.latent_channels)
        check_latent(model_cfg, latent)
        return velocity.batch_of(model_cfg, latent, per_device * self._ways, self.cfg.text_tokens, self.mesh)

    def _says(self, batch: LatentBatch) -> str:
        size, rows = self.cfg.video, batch.latents_BTHWC.shape[0]
        blocks = "+".join(map(str, self.blocks))
        return f"{rows} x {size.frames} frames of {size.width}x{size.height}, {blocks} blocks"


def _random(shapes: Tree, seed: int) -> Any:
    """Small numbers without a pattern in place of shapes, each device making its own, by one program.

    Zeros would flatter a GPU's clock. A hash of each element's place is enough, and compiles in a tenth of the time
    that a generator of random numbers for every leaf takes.
    """
    leaves, tree = jax.tree.flatten(shapes)

    def one(index: int, x: jax.ShapeDtypeStruct) -> jax.Array:
        place = jnp.full(x.shape, (seed * 1_000_003 + index * 7919) % 2**32, jnp.uint32)
        for axis, stride in enumerate(np.cumprod([1, *x.shape[:0:-1]])[::-1] if x.shape else ()):
            place += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * np.uint32(stride % 2**32)
        bits = place * np.uint32(0x9E3779B1)
        bits = (bits ^ (bits >> 15)) * np.uint32(0x85EBCA77)
        bits ^= bits >> 13
        return (0.035 * (bits.astype(jnp.float32) / 2.0**31 - 1)).astype(x.dtype)  # deviation 0.02

    made = jax.jit(lambda: [one(*pair) for pair in enumerate(leaves)], out_shardings=[x.sharding for x in leaves])
    return tree.unflatten(made())
