"""The programs that `osjax bench` measures: train step, model call, autoencoder and T5, with random weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.models.mmdit import patch
from osjax.ops import flops as flop_count
from osjax.parallel import rules, sharding
from osjax.run.bench_measure import Work
from osjax.run.config import to_dataclass
from osjax.training import diffusion, optimizer, state
from osjax.types import LatentBatch


@dataclass(frozen=True)
class Bench:
    """What a config asks for, checked. `works[name]()` gives a Work.

    blocks: of the velocity model, (double, single); its config says how many there are in all.
    """

    cfg: ConfigDict
    mesh: Mesh
    blocks: tuple[int, int]

    @classmethod
    def of(cls, cfg: ConfigDict, mesh: Mesh) -> "Bench":
        blocks = tuple(cfg.blocks) or (cfg.model.depth, cfg.model.depth_single_blocks)
        return cls(cfg, mesh, blocks)

    @property
    def works(self) -> dict[str, Callable[[], Work]]:
        sides = {side: partial(self._autoencoder, side) for side in ("encode", "decode")}
        return {"train": self.train, "denoise": self.denoise, **sides, "t5": self.t5}

    def train(self) -> Work:
        """One update: noise, loss, gradients, AdamW. FLOPs: three forward passes, whatever is computed again."""
        model_cfg, opt = self._model(), to_dataclass(optimizer.OptimizerConfig, self.cfg.optimizer, "optimizer")
        module, tx = models.build(model_cfg), optimizer.make(opt)
        create = partial(state.create, tx=tx, with_ema=opt.ema_decay > 0)
        boxed = jax.eval_shape(lambda: create(lambda: models.init_params(model_cfg, jax.random.key(0))))
        shardings = sharding.of_boxed(boxed, self.mesh)
        shapes = _placed(nn.unbox(boxed), shardings)
        step = sharding.jit_step(diffusion.make_step(module, tx, opt), shardings, self.mesh)
        batch = self._latents(model_cfg, self.cfg.train_batch)
        key = sharding.random_key(self.cfg.seed, self.mesh)

        def inputs():
            fill = jax.jit(lambda params: create(lambda: params), out_shardings=shardings, donate_argnums=0)
            return fill(_random(shapes.params, self.cfg.seed)), _random(batch, 1), key

        flops = 3 * self._forward_flops(model_cfg, batch)
        return Work(
            "train",
            self._says(batch),
            lambda: step.lower(shapes, batch, key),
            inputs,
            flops,
            _tokens(batch, model_cfg.patch_size),
            carries=True,
        )

    def denoise(self) -> Work:
        """One call of the velocity model; guidance takes up to three a step."""
        model_cfg = replace(self._model(), dtype=self.cfg.dtype)
        params = self._params(model_cfg, self.cfg.dtype)
        batch = self._latents(model_cfg, self.cfg.denoise_batch)
        times = jax.ShapeDtypeStruct(batch.y_vec_BC.shape[:1], jnp.float32, sharding=sharding.batch_sharding(self.mesh))
        call = jax.jit(partial(_velocity, models.build(model_cfg)))

        def lower():
            with sharding.under(self.mesh):
                return call.lower(params, batch, times)

        def inputs():
            return _random(params, self.cfg.seed), _random(batch, 1), _random(times, 2)

        flops = self._forward_flops(model_cfg, batch)
        return Work("denoise", self._says(batch), lower, inputs, flops, _tokens(batch, model_cfg.patch_size))

    def _autoencoder(self, method: str) -> Work:
        """Encode or decode one video, or one tile of it. Its tokens are latent pixels."""
        cfg = self.cfg.autoencoder
        ae_cfg = self._ae_config()
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

    def _model(self) -> Any:
        double, single = self.blocks
        fields = {**self.cfg.model, "depth": double, "depth_single_blocks": single}
        return to_dataclass(models.config_class("mmdit"), fields, "model")

    def _ae_config(self) -> Any:
        cfg = self.cfg.autoencoder
        return to_dataclass(models.config_class(cfg.family), cfg.config, "autoencoder.config")

    def _params(self, model_cfg: Any, dtype: str, axis_rules: Any = rules.TRANSFORMER) -> Any:
        """Shapes of parameters with their places on the mesh, in `dtype`."""
        boxed = models.abstract_params(model_cfg)
        return _placed(nn.unbox(boxed), sharding.of_boxed(boxed, self.mesh, axis_rules), dtype)

    def _latents(self, model_cfg: Any, per_device: int) -> LatentBatch:
        """Shapes of the batch of a video of the config's size. UserError where its latents do not divide."""
        size, p = self.cfg.video, model_cfg.patch_size
        ae_cfg = self._ae_config()
        T, H, W = models.build(ae_cfg).latent_shape(size.frames, size.height, size.width)
        C = ae_cfg.latent_channels
        if model_cfg.in_channels != C * p**2:
            raise UserError(
                f"model.in_channels {model_cfg.in_channels} does not fit the autoencoder's {C} latent channels * "
                f"patch_size ** 2: set it to {C * p**2}",
                status=2,
            )
        if H % p or W % p:
            raise UserError(f"latents of {H}x{W} do not divide into patches of {p}: use another video size", status=2)
        rows = sharding.batch_sharding(self.mesh)

        def f32(*shape):
            return jax.ShapeDtypeStruct((per_device * self._ways, *shape), jnp.float32, sharding=rows)

        cond = f32(T, H, W, C + 1) if model_cfg.cond_embed else None
        return LatentBatch(
            f32(T, H, W, C), f32(self.cfg.text_tokens, model_cfg.context_in_dim), f32(model_cfg.vec_in_dim), cond
        )

    def _says(self, batch: LatentBatch) -> str:
        size, rows = self.cfg.video, batch.latents_BTHWC.shape[0]
        blocks = "+".join(map(str, self.blocks))
        return f"{rows} x {size.frames} frames of {size.width}x{size.height}, {blocks} blocks"

    def _forward_flops(self, model_cfg: Any, batch: LatentBatch) -> int:
        # Flash kernels show no matrix products to a tracer; the dense form does the same ones.
        module = models.build(replace(model_cfg, attention="dense", remat="none"))
        params = self._params(model_cfg, "float32")
        times = jax.ShapeDtypeStruct(batch.y_vec_BC.shape[:1], jnp.float32)
        return flop_count.of_program(partial(_velocity, module), params, batch, times)


def _velocity(module: nn.Module, params: Any, batch: LatentBatch, t_B: jax.Array) -> jax.Array:
    B, T, H, W, _ = batch.latents_BTHWC.shape
    p = module.cfg.patch_size
    img, cond = (None if x is None else patch.pack(x, p) for x in (batch.latents_BTHWC, batch.cond_BTHWC))
    img_ids, txt_ids = patch.img_ids(B, T, H, W, p), patch.txt_ids(B, batch.txt_BMC.shape[1])
    return module.apply({"params": params}, img, img_ids, batch.txt_BMC, txt_ids, t_B, batch.y_vec_BC, cond)


def _tokens(batch: LatentBatch, p: int) -> int:
    """Video and text tokens of a batch."""
    B, T, H, W, _ = batch.latents_BTHWC.shape
    return B * (T * (H // p) * (W // p) + batch.txt_BMC.shape[1])


def _placed(shapes: Any, shardings: Any, dtype: str | None = None) -> Any:
    """Shapes with shardings, floating ones in `dtype`."""

    def one(x, where):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(x.shape, dtype if dtype and floating else x.dtype, sharding=where)

    return jax.tree.map(one, shapes, shardings)


def _random(shapes: Any, seed: int) -> Any:
    """Small normal numbers in place of shapes, each device making its own. Zeros would flatter a GPU's clock."""
    key = jax.random.key(seed, impl="rbg")

    def one(index, x):
        def draw(key):
            return (0.02 * jax.random.normal(jax.random.fold_in(key, index), x.shape)).astype(x.dtype)

        return jax.jit(draw, out_shardings=x.sharding)(key)

    leaves, tree = jax.tree.flatten(shapes)
    return tree.unflatten([one(*pair) for pair in enumerate(leaves)])
