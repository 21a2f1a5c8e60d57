"""What `tests.measures.accelerator` measures, each as a `Piece`, in the order of their importance.

Every program of a piece is lowered by `lower()` from shapes alone, so that it can be compiled for devices that are not
here; `run()` measures it on devices that are.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from osjax import models
from osjax.bench import fit
from osjax.bench.measure import Work
from osjax.bench.works import Bench
from osjax.configs.bench import deep_compression_768, v2_256, v2_768
from osjax.errors import UserError
from osjax.models import int8, velocity
from osjax.ops.attention import attend
from osjax.parallel import mesh as device_mesh
from osjax.parallel import sharding
from osjax.parts.bench import BenchKeys
from osjax.parts.groups import to_dataclass
from osjax.planning import memory, program

HEADS, DIM = 24, 128  # of the 11B model
SMALL, SHORT, LONG = 2048, 8448 + 512, 76288 + 512  # tokens: to compare with dense; of stage 1 and 3, text included
RELEASED = {"256px": v2_256, "768px": v2_768, "768px, deep compression": deep_compression_768}
KERNELS = {"flash": "flash", "blockwise": "blockwise", "ulysses": "flash", "ulysses_ring": "flash", "ring": "flash"}
WHOLE = "flash", "blockwise"  # every device has all tokens of its clips
RUNS = {"forward": 4, "forward and backward": 14}  # products' FLOPs over B h S^2 d; backward computes the weights again


@dataclass(frozen=True)
class Piece:
    """One row of the table.

    expects: seconds that it takes on an H200, compilation included. mesh: that its programs run over.
    works: programs to time, or to compile; it is given a function that tells the bytes a program takes.
    compares: programs whose results are compared: the kernel's, dense attention's in float32, its own in bfloat16.
    planned: bytes of a device, by the planner's arithmetic.
    """

    name: str
    expects: float
    mesh: Mesh
    works: Callable[[Callable[[Work], float]], list[Work]] | None = None
    compares: Callable[[], tuple[Work, Work, Work]] | None = None
    planned: Callable[[Work], int] | None = None


def pieces(mesh_of: Callable[..., Mesh], limit: float) -> Iterator[Piece]:
    """All of them. mesh_of: a mesh over the devices, from sizes of its axes. limit: bytes that a program may take."""
    batches, shards = mesh_of(), mesh_of(data=1, fsdp=-1)
    count = batches.size
    kernels = [name for name in KERNELS if name in WHOLE or (count > 1 and _splits(name, count))]
    fast = [name for name in kernels if name != "blockwise"]

    def attention(name: str, tokens: int, expects: float) -> Piece:
        mesh = _attention_mesh(name, mesh_of)
        works = [_attention(name, tokens, mesh, what) for what in RUNS]
        return Piece(f"{name}, {tokens} tokens", expects, mesh, lambda measure: works)

    for name in kernels:
        mesh = _attention_mesh(name, mesh_of)
        yield Piece(f"{name} against dense", 15, mesh, compares=partial(_compared, name, mesh, batches))
    for name in fast:
        yield attention(name, SHORT, 15)
    yield _train("stage 1, two blocks", v2_256, mesh_of, 1, 35)
    yield _train("stage 3, two blocks", v2_768, mesh_of, math.gcd(count, 4), 45)
    for name in fast:
        yield attention(name, LONG, 25)
    for size, config in RELEASED.items():
        yield Piece(
            f"denoise, {size}",
            70 if size == "768px" else 40,
            shards,
            partial(_fitted, "denoise", config, shards, limit),
        )
        if size != "768px":  # its autoencoder is that of 256px, in the same tiles
            decode = _bench(config, batches).works["decode"]
            yield Piece(f"decode, {size}", 20, batches, lambda measure, decode=decode: [decode()])
    yield Piece("denoise, 256px, int8 weights", 40, shards, partial(_int8, shards, limit))
    yield Piece("train, 256px, blocks that fit", 80, shards, partial(_fitted, "train", v2_256, shards, limit))
    yield attention("blockwise", SHORT, 15)


def _splits(impl: str, count: int) -> bool:
    common = math.gcd(HEADS, count)
    return {"ulysses": common == count, "ulysses_ring": 1 < common < count, "ring": True}[impl]


# Attention


def _attention_mesh(impl: str, mesh_of) -> Mesh:
    return mesh_of() if impl in WHOLE else mesh_of(data=1, sequence=-1)


def _attention(impl: str, S: int, mesh: Mesh, what: str, dtype: str = "bfloat16") -> Work:
    """Attention over S tokens of one clip of a device, or of one clip whose tokens all devices share."""
    rows = mesh.shape["data"]
    layout = NamedSharding(mesh, PartitionSpec("data", "sequence"))
    x = jax.ShapeDtypeStruct((rows, S, HEADS, DIM), dtype, sharding=layout)
    valid = np.arange(S) < S - 37  # padding is masked, as in training

    def forward(q, k, v, dout):
        out = attend(q, k, v, impl=impl, kernel=KERNELS.get(impl, "dense"), valid=valid)
        return out * valid.astype(out.dtype)[None, :, None, None]

    def both(q, k, v, dout):
        out, pull = jax.vjp(lambda *qkv: forward(*qkv, dout), q, k, v)
        return out, *pull(dout.astype(out.dtype))

    def lower():
        with sharding.under(mesh), jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
            return jax.jit(forward if what == "forward" else both).lower(x, x, x, x)

    flops = RUNS[what] * rows * HEADS * S**2 * DIM
    return Work(f"{impl}, {what}", f"{rows} x {S} tokens, {dtype}", lower, lambda: random([x] * 4), flops, rows * S)


def _compared(impl: str, mesh: Mesh, plain: Mesh) -> tuple[Work, Work, Work]:
    what, dense = "forward and backward", "dense"
    own = _attention(impl, SMALL, mesh, what)
    if mesh.shape["data"] != plain.shape["data"]:  # the kernel has one clip
        plain = device_mesh.make(data=1, fsdp=1, devices=plain.devices.flat[:1])
    return own, _attention(dense, SMALL, plain, what, "float32"), _attention(dense, SMALL, plain, what)


# Models


def _bench(config, mesh: Mesh, blocks: tuple[int, int] | None = None, **changes) -> Bench:
    cfg = config.get_config()
    cfg.model.update(changes)
    bench = Bench.of(to_dataclass(BenchKeys, cfg, ""), mesh)
    return bench if blocks is None else replace(bench, blocks=blocks)


def _train(name: str, config, mesh_of, sequence: int, expects: float) -> Piece:
    mesh = mesh_of(data=1, fsdp=-1, sequence=sequence)
    bench = _bench(config, mesh, (1, 1), attention="ulysses" if sequence > 1 else "flash")
    return Piece(f"train, {name}", expects, mesh, lambda measure: [bench.train()], planned=lambda _: _planned(bench))


def _planned(bench: Bench) -> int:
    """Bytes of a train step on one device, by the planner's arithmetic."""
    cfg, mesh = bench.cfg, bench.mesh
    double, single = bench.blocks
    model_cfg = models.config("mmdit", **{**cfg.model, "depth": double, "depth_single_blocks": single})
    params = nn.unbox(models.abstract_params(model_cfg))
    numbers = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
    state = 4 * numbers * (3 + (cfg.optimizer.ema_decay > 0)) // (mesh.size // mesh.shape["data"])
    T, H, W = models.build(models.config(cfg.autoencoder.family)).latent_shape(*vars(cfg.video).values())
    tokens = T * (H // model_cfg.patch_size) * (W // model_cfg.patch_size) + cfg.text_tokens
    rows = cfg.train_batch * mesh.shape["data"] * mesh.shape["fsdp"]
    return memory.estimate(model_cfg, numbers, state, dict(mesh.shape), rows, tokens).peak


def _fitted(work: str, config, mesh: Mesh, limit: float, measure) -> list[Work]:
    """With as many blocks as fit; `measure` gives a program's bytes."""
    bench = _bench(config, mesh)

    def bytes_of(blocks: tuple[int, int]) -> float:
        return measure(replace(bench, blocks=blocks).works[work]())

    if bytes_of(bench.blocks) > limit:
        bench = replace(bench, blocks=fit.blocks(bytes_of, bench.blocks, limit))
    return [bench.works[work]()]


def _int8(mesh: Mesh, limit: float, measure) -> list[Work]:
    """One call of the whole velocity model with int8 weights."""
    bench = _bench(v2_256, mesh)
    plain = bench.denoise()
    cfg = models.config("mmdit", **{**bench.cfg.model, "dtype": bench.cfg.dtype})
    boxed = models.abstract_params(cfg)
    shapes = program.placed(nn.unbox(boxed), sharding.of_boxed(boxed, mesh), cfg.dtype)
    quantised = int8.abstract_params(boxed, shapes)
    params = program.placed(nn.unbox(quantised), sharding.of_boxed(quantised, mesh))
    T, H, W = models.build(models.config(bench.cfg.autoencoder.family)).latent_shape(*vars(bench.cfg.video).values())
    latent = T, H, W, cfg.in_channels // cfg.patch_size**2
    batch = velocity.batch_of(cfg, latent, mesh.shape["fsdp"], bench.cfg.text_tokens, mesh)
    times = jax.ShapeDtypeStruct((mesh.shape["fsdp"],), jnp.float32, sharding=sharding.batch_sharding(mesh))
    call = jax.jit(partial(velocity.of_batch, models.build(cfg)))

    def lower():
        with sharding.under(mesh):
            return call.lower(params, batch, times)

    work = replace(plain, name="denoise, int8", lower=lower, inputs=lambda: random((params, batch, times)))
    if measure(work) > limit:
        raise UserError("the whole model does not fit")
    return [work]


# Measuring


def random(shapes: Any) -> Any:
    """Random numbers in place of shapes: normal ones, and integers of all values."""
    leaves, tree = jax.tree.flatten(shapes)

    def one(key, x):
        if jnp.issubdtype(x.dtype, jnp.integer):
            return jax.lax.bitcast_convert_type(jax.random.bits(key, x.shape, f"uint{8 * x.dtype.itemsize}"), x.dtype)
        scale = 1.0 if x.ndim == 4 and x.shape[-1] == DIM else 0.02  # queries, keys and values; weights
        return (scale * jax.random.normal(key, x.shape, jnp.float32)).astype(x.dtype)

    def all_of_them(key):
        return [one(*pair) for pair in zip(jax.random.split(key, len(leaves)), leaves, strict=True)]

    made = jax.jit(all_of_them, out_shardings=[x.sharding for x in leaves])
    return tree.unflatten(made(jax.random.key(0)))


def errors(programs: tuple[Any, Any, Any], inputs: tuple) -> dict[str, float]:
    """Largest errors against float32, of the result and of the gradients, beside those of dense attention in bfloat16.

    Each over the largest value of what it should be.
    """

    def run(compiled, dtype=None):
        arrays = [np.asarray(x).astype(dtype or x.dtype) for x in inputs]  # its devices may be others
        return compiled(*map(jax.device_put, arrays, compiled.input_shardings[0]))

    kernel, exact, own = run(programs[0]), run(programs[1], np.float32), run(programs[2])

    def worst(results, want):
        pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(results, want, strict=True)]
        return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)

    return {
        "error_forward": worst(kernel[:1], exact[:1]),
        "error_backward": worst(kernel[1:], exact[1:]),
        "dense_forward": worst(own[:1], exact[:1]),
        "dense_backward": worst(own[1:], exact[1:]),
    }


def seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Median of some calls."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(function())
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def mesh_over(devices, **sizes: int) -> Mesh:
    return device_mesh.make(**sizes, devices=devices)
