"""cuDNN's flash attention on a GPU, forward and backward apart, as the custom calls that XLA hands to cuDNN.

`jax.nn.dot_product_attention(implementation="cudnn")` makes the same two calls, but rounds the log-sum-exp that it
returns to the dtype of the queries (a bfloat16 near 11, what 76 000 keys give, is 3% of a weight), drops that array's
cotangent, and keeps what it saves for its gradient out of reach of remat policies. A ring needs the log-sum-exp in
float32, and its backward half with the one over all keys. So the calls are made here, through `jax.ffi`.
tests/ops/test_cudnn.py compares them with those of jax's function.
"""

import json

import jax
import jax.numpy as jnp

NAMES = {"bfloat16": "BF16", "float16": "F16"}

# Axes of the six products of attention over (B, S, h, d) arrays and (B, h, S, K) logits: contracted, then batch axes of
# the left and of the right. XLA wants them said although only one choice exists for a layout.
FORWARD_PRODUCTS = {
    "bmm1": ((3, 3), ((0, 2), (0, 2))),  # logits = q k
    "bmm2": ((3, 1), ((0, 1), (0, 2))),  # out = weights v
}
BACKWARD_PRODUCTS = {
    "bmm1_grad_gemm1": ((2, 1), ((0, 1), (0, 2))),  # dk = dlogits q
    "bmm1_grad_gemm2": ((3, 1), ((0, 1), (0, 2))),  # dq = dlogits k
    "bmm2_grad_gemm1": ((2, 1), ((0, 1), (0, 2))),  # dv = weights dout
    "bmm2_grad_gemm2": ((3, 3), ((0, 2), (0, 2))),  # dweights = dout v
}


def forward(q_BShd: jax.Array, k_BKhd: jax.Array, v_BKhd: jax.Array, count) -> tuple[jax.Array, jax.Array]:
    """cuDNN's output (B, S, h, d) in q's dtype and log-sum-exp (B, h, S) in float32; see `ops.kernels.Kernel`.

    q_BShd, k_BKhd, v_BKhd: bfloat16 or float16, d <= 256 and a multiple of 8.
    count: how many keys, the first ones, are real, int or int32 scalar; None: all.
    """
    B, S, h, d = q_BShd.shape
    lse = jax.ShapeDtypeStruct((B, h, S), jnp.float32)
    inputs = (q_BShd, k_BKhd, v_BKhd, *_lengths(q_BShd, count))
    out_BhSd, lse_BhS = _call("__cudnn$fmhaSoftmax", FORWARD_PRODUCTS, inputs, [q_BShd], [lse], count)
    return out_BhSd.transpose(0, 2, 1, 3), lse_BhS


def backward(
    q_BShd: jax.Array,
    k_BKhd: jax.Array,
    v_BKhd: jax.Array,
    count,
    out_BShd: jax.Array,
    lse_BhS: jax.Array,
    dout_BShd: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """cuDNN's gradients of q, k and v, in their shapes and dtype; see `ops.kernels.Kernel`.

    q_BShd, k_BKhd, v_BKhd, count: as `forward` takes them. dout_BShd: gradient of out, in q's dtype.
    out_BShd, lse_BhS: over all keys, of which these may be a part.
    """
    inputs = (q_BShd, k_BKhd, v_BKhd, lse_BhS, dout_BShd, out_BShd, *_lengths(q_BShd, count))
    like = [q_BShd, k_BKhd, v_BKhd]
    grads = _call("__cudnn$fmhaSoftmaxBackward", BACKWARD_PRODUCTS, inputs, like, [], count)
    return tuple(g_BhSd.transpose(0, 2, 1, 3) for g_BhSd in grads)


def _lengths(q, count) -> tuple[jax.Array, ...]:
    """Real queries and keys of every clip, where some keys are hidden."""
    if count is None:
        return ()
    B, S = q.shape[:2]
    return jnp.full((B,), S, jnp.int32), jnp.full((B,), count, jnp.int32)


def _call(target: str, products: dict, inputs: tuple, like: list, others: list, count) -> list[jax.Array]:
    """Results of a call: first arrays like (B, S, h, d) ones, written in that order but seen as (B, h, S, d).

    The call's last result, XLA's room for cuDNN to work in, is dropped.
    """
    heads_first = [jax.ShapeDtypeStruct((x.shape[0], x.shape[2], x.shape[1], x.shape[3]), x.dtype) for x in like]
    workspace = jax.ShapeDtypeStruct((0,), jnp.uint8)
    call = jax.ffi.ffi_call(
        target,
        [*heads_first, *others, workspace],
        output_layouts=[(0, 2, 1, 3)] * len(like) + [None] * (len(others) + 1),
        custom_call_api_version=2,
        legacy_backend_config=_config(inputs[0], inputs[1], products, masked=count is not None),
    )
    return call(*inputs)[:-1]


def _config(q, k, products: dict, masked: bool) -> str:
    """What XLA reads of a call: a CudnnfMHABackendConfig (xla/service/gpu/backend_configs.proto) as JSON."""
    (B, S, h, d), K = q.shape, k.shape[1]
    settings = {
        "algorithm": {
            "algo_id": "0",
            "math_type": "TENSOR_OP_MATH",
            "tuning_knobs": {"17": "1", "24": "0"},
            "is_cudnn_frontend": True,
            "workspace_size": "0",
        },
        "fmha_scale": d**-0.5,
        "intermediate_tensor_shape": {
            "element_type": NAMES[q.dtype.name],
            "dimensions": [str(n) for n in (B, h, S, K)],
            "layout": {"minor_to_major": ["3", "2", "1", "0"]},
        },
        "is_flash_attention": True,
        "mask_type": "PADDING" if masked else "NO_MASK",
        "dropout_rate": 0.0,
        "seed": 42,
        "sliding_window_length": 0,
        "max_seg_per_batch": 1,
        "is_paged_attention": False,
    }
    for name, ((left, right), (left_batch, right_batch)) in products.items():
        settings[f"{name}_dot_dimension_numbers"] = {
            "lhs_contracting_dimensions": [str(left)],
            "rhs_contracting_dimensions": [str(right)],
            "lhs_batch_dimensions": [str(axis) for axis in left_batch],
            "rhs_batch_dimensions": [str(axis) for axis in right_batch],
        }
    return json.dumps({"operation_queue_id": "0", "cudnn_fmha_backend_config": settings})
