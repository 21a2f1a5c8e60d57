"""What a train step of the MMDiT keeps and casts, read from the program that is traced and from the one a TPU gets."""

import math
import re
from functools import partial
from importlib.util import find_spec

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict
from jax.extend.core import jaxprs_in_params

from osjax import models
from osjax.models import velocity
from osjax.planning import memory
from osjax.training import diffusion, optimizer, state
from tests.parallel import processes

DEPTH, WIDTH = (2, 3), 256
FIELDS = dict(in_channels=8, vec_in_dim=16, context_in_dim=16, hidden_size=WIDTH, num_heads=2, axes_dim=(16, 56, 56))
FIELDS |= dict(depth=DEPTH[0], depth_single_blocks=DEPTH[1], patch_size=1)
LATENT, TEXT = (4, 10, 10, 8), 40
TOKENS = 4 * 10 * 10 + TEXT


def config(attention, **changes):
    return models.config("mmdit", **{**FIELDS, "dtype": "bfloat16", "attention": attention, **changes})


def traced(**changes):
    """A whole train step: every equation, with whether a loop repeats it."""
    cfg, opt = config("blockwise", **changes), optimizer.OptimizerConfig()
    tx = optimizer.make(opt)
    create = partial(state.create, lambda: models.init_params(cfg, jax.random.key(0)), tx=tx, with_ema=False)
    arguments = nn.unbox(jax.eval_shape(create)), velocity.batch_of(cfg, LATENT, 1, TEXT, None), jax.random.key(0)
    return list(equations(jax.make_jaxpr(diffusion.make_step(models.build(cfg), tx, opt))(*arguments).jaxpr))


def equations(jaxpr, repeated=False):
    for equation in jaxpr.eqns:
        yield equation, repeated
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner, repeated or equation.primitive.name in ("scan", "while"))


def kept_of_every_block(found, depth=DEPTH[1], least=WIDTH * WIDTH):
    """What the loop over `depth` blocks leaves for the gradients: (dtype, shape) of tensors of `least` values and more.

    By default of single blocks, whole tensors of tokens or kernels.
    """
    loops = [e for e, repeated in found if e.primitive.name == "scan" and not repeated]
    forward = next(e for e in loops if e.params["length"] == depth)
    (body,) = jaxprs_in_params(forward.params)  # what a turn leaves lies stacked; what it carries does not
    pairs = zip(forward.outvars, body.outvars, strict=True)
    kept = [all_.aval for all_, one in pairs if all_.aval.shape == (depth, *one.aval.shape)]
    return [(x.dtype.name, x.shape[1:]) for x in kept if x.size >= depth * least]


def casts_to_bfloat16(found, of):
    """Shapes of float32 values like `of` that become bfloat16: those cast once a step, and those cast in loops."""
    casts = [
        (equation.invars[0].aval.shape, repeated)
        for equation, repeated in found
        if equation.primitive.name == "convert_element_type" and equation.params["new_dtype"] == jnp.bfloat16
    ]
    return ([shape for shape, repeated in casts if repeated is loop and shape in of] for loop in (False, True))


def kernels_of(stack, **changes):
    """Shapes of the kernels of all blocks together, and of one block."""
    flat = flatten_dict(nn.unbox(models.abstract_params(config("blockwise", **changes)))[stack])
    shapes = [x.shape for path, x in flat.items() if path[-1] == "kernel"]
    return shapes, [shape[1:] for shape in shapes]


def test_blocks_keep_their_tokens_in_bfloat16():
    assert {dtype for dtype, shape in kept_of_every_block(traced()) if TOKENS in shape} == {"bfloat16"}
    assert {dtype for dtype, _ in kept_of_every_block(traced(dtype="float32"))} == {"float32"}


def test_blocks_do_not_keep_their_kernels_a_second_time():
    shapes = {shape for _, shape in kept_of_every_block(traced(dtype="float32"))}
    assert len(shapes) > 2 and not shapes & {*kernels_of("single_blocks")[1]}


def test_what_a_block_keeps_is_what_the_planner_counts():
    def tensors(remat, depth):
        shapes = [shape for _, shape in kept_of_every_block(traced(dtype="float32", remat=remat), depth, WIDTH * TEXT)]
        return sum(math.prod(shape) for shape in shapes) / (TOKENS * WIDTH)

    double, single = DEPTH
    assert tensors("none", double) == pytest.approx(memory.WHOLE_DOUBLE, rel=0.05)
    assert tensors("none", single) == memory.WHOLE_SINGLE
    for depth in DEPTH:
        assert [tensors(remat, depth) for remat in ("full", "save_attention")] == [1, 2]
    assert memory.SAVED["full"] == 1 and memory.SAVED["save_attention"] == 2


@pytest.mark.parametrize("remat", ["none", "full"])
def test_kernels_of_blocks_are_cast_once_a_step_outside_the_loops(remat):
    whole, single = kernels_of("single_blocks")
    once, repeated = casts_to_bfloat16(traced(remat=remat), {*whole, *single})
    assert sorted(once) == sorted(whole) and not repeated


def test_a_cast_inside_the_loop_would_be_found():
    def loss(stacked):
        return jax.lax.scan(lambda x, kernel: (x @ kernel.astype(jnp.bfloat16), None), x, stacked)[0].sum()

    x, stacked = jnp.ones((TOKENS, WIDTH), jnp.bfloat16), jnp.ones((DEPTH[1], WIDTH, WIDTH))
    found = list(equations(jax.make_jaxpr(jax.grad(loss))(stacked).jaxpr))
    once, repeated = casts_to_bfloat16(found, {(DEPTH[1], WIDTH, WIDTH), (WIDTH, WIDTH)})
    assert not once and repeated
    assert ("bfloat16", (WIDTH, WIDTH)) in kept_of_every_block(found)  # and so kept a second time


TPU = """
import jax, sys
from tests.models.test_mmdit_operators import LATENT, TEXT, config
from osjax.models import velocity
from osjax.parallel import mesh
from osjax.planning import aot, program, targets
from osjax.training.optimizer import OptimizerConfig
grid = mesh.make(1, 4, devices=aot.tpu_devices("v5e:2x2"))
cfg = config("flash")
step = program.train_step(cfg, OptimizerConfig(), grid, velocity.batch_of(cfg, LATENT, 4, TEXT, grid))
print(step.lower().compile().as_text())
"""


@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs osjax[plan], TPU's compiler")
@pytest.mark.timeout(900)
def test_a_compiled_tpu_program_holds_no_float32_tokens_of_all_blocks_and_casts_a_kernel_once():
    text = processes.run_for_tpu(TPU).stdout
    stacked = {m[1] for m in re.finditer(r"(f32|bf16)\[3,1,440,(?:256|2,128|1024|3,2,128)\]", text)}
    assert stacked == {"bf16"}
    assert len(re.findall(r"= bf16\[3,1024,64\]\S* convert\(", text)) == 1
