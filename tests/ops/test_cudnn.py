"""cuDNN's calls: what they say of an attention, and that jax's own public attention says the same.

What a GPU computes with them is compared where there is one, by tests/measures/accelerator.py.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.errors import UserError
from osjax.ops import cudnn, flash, kernels
from osjax.ops.attention import attend
from osjax.parallel import mesh, sharding
from osjax.planning import aot, targets

B, S, K, HEADS, D = 2, 64, 96, 3, 40


def shapes(dtype="bfloat16"):
    """Of q, k, v and the gradient of the output."""
    return [jax.ShapeDtypeStruct((B, n, HEADS, D), dtype) for n in (S, K, K, S)]


def own(count):
    """Gradients by osjax's calls."""

    def loss(q, k, v, dout):
        return (kernels.attention(q, k, v, flash.CUDNN, count) * dout).sum()

    return jax.grad(loss, (0, 1, 2))


def public(count):
    """Gradients by jax's function, which knows lengths as arrays."""

    def loss(q, k, v, dout):
        lengths = {} if count is None else {"key_value_seq_lengths": jnp.full((B,), count, jnp.int32)}
        return (jax.nn.dot_product_attention(q, k, v, implementation="cudnn", **lengths) * dout).sum()

    return jax.grad(loss, (0, 1, 2))


def lowered(function, arguments) -> str:
    """The program for a GPU, which need not be there."""
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


def calls(program: str) -> dict[str, tuple]:
    """cuDNN's calls: {target: (settings, layouts, version of the interface, types)}.

    Of the logits' shape it keeps the fields that say something; jax writes the others with their defaults.
    """
    found = {}
    for line in program.splitlines():
        if target := re.search(r"@(__cudnn\$\w+)\(", line):
            config = re.search(r'backend_config = "(.*?)(?<!\\)"', line)[1].replace("\\22", '"').replace('\\"', '"')
            layouts = re.findall(r"(operand_layouts|result_layouts) = (\[.*?\])(?=[,}])", line)
            settings = json.loads(config)["cudnn_fmha_backend_config"]
            settings["intermediate_tensor_shape"] = {
                "element_type": settings["intermediate_tensor_shape"]["element_type"],
                "dimensions": settings["intermediate_tensor_shape"]["dimensions"],
                "order": settings["intermediate_tensor_shape"]["layout"]["minor_to_major"],
            }
            version = re.search(r"api_version = (\d)", line)[1]
            found[target[1]] = settings, layouts, version, line[line.rindex("} : ") :]
    return found


@pytest.mark.parametrize("count", [None, 90])
def test_cudnn_is_asked_for_scaled_softmax_attention_with_float32_sums(count):
    found = calls(lowered(own(count), shapes()))
    assert sorted(found) == ["__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"]
    settings, *_, types = found["__cudnn$fmhaSoftmax"]
    assert np.isclose(settings["fmha_scale"], D**-0.5)
    assert settings["mask_type"] == ("NO_MASK" if count is None else "PADDING")
    assert settings["intermediate_tensor_shape"]["dimensions"] == [str(n) for n in (B, HEADS, S, K)]
    assert f"tensor<{B}x{HEADS}x{S}xf32>" in types  # the log-sum-exp
    half = calls(lowered(own(count), shapes("float16")))
    assert half["__cudnn$fmhaSoftmax"][0]["intermediate_tensor_shape"]["element_type"] == "F16"


def test_cudnn_gives_arrays_in_the_shapes_and_dtypes_of_the_models():
    out = jax.eval_shape(lambda q, k, v, _: kernels.attention(q, k, v, flash.CUDNN, None), *shapes())
    assert (out.shape, out.dtype) == ((B, S, HEADS, D), jnp.bfloat16)
    grads = jax.eval_shape(own(jnp.int32(90)), *shapes())
    assert [(x.shape, x.dtype) for x in grads] == [(x.shape, x.dtype) for x in shapes()[:3]]
    _, lse = jax.eval_shape(lambda q, k, v, _: cudnn.forward(q, k, v, None), *shapes())
    assert (lse.shape, lse.dtype) == ((B, HEADS, S), jnp.float32)


@pytest.mark.parametrize("count", [None, 90])
def test_the_calls_are_those_of_jax_own_attention(count):
    """Where cuDNN is installed (`pip install 'osjax[cuda]'`), without which jax does not lower its function."""
    try:
        want = calls(lowered(public(count), shapes()))
    except RuntimeError as error:
        assert "cuDNN is not detected" in str(error)
        pytest.skip("cuDNN is not installed")
    got = calls(lowered(own(count), shapes()))
    assert got == want
    assert got != calls(lowered(own(80 if count is None else None), shapes()))


@pytest.mark.parametrize(
    "impl, split, heads, times",
    [("flash", 1, 4, 1), ("ulysses", 4, 4, 1), ("ring", 4, 3, 2), ("ulysses_ring", 8, 4, 2)],
)
def test_every_attention_compiles_for_h200_with_cudnn_forward_and_backward(impl, split, heads, times):
    """A ring makes its calls in a loop over the parts that visit, and once more for the last."""
    target = targets.parse("h200x8")
    if not aot.available(target):
        pytest.skip("needs the compiler of osjax[plan-gpu]")
    grid = mesh.make(data=-1, sequence=split, devices=aot.devices(target))
    valid = np.arange(512) < 500

    def loss(q, k, v):
        return attend(q, k, v, impl=impl, kernel="flash", valid=valid).sum(dtype=jnp.float32)

    def program(dtype):
        layout = jax.NamedSharding(grid, jax.P("data", "sequence"))
        x = jax.ShapeDtypeStruct((8 // split, 512, heads, 128), dtype, sharding=layout)
        with sharding.under(grid):
            return jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile().as_text()

    text = program("bfloat16")
    assert text.count('custom_call_target="__cudnn$fmhaSoftmax"') == times
    assert text.count('custom_call_target="__cudnn$fmhaSoftmaxBackward"') == times
    with pytest.raises(UserError, match="needs bfloat16"):
        program("float32")
