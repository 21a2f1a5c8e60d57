"""Flash attention: cuDNN on GPUs, splash (Pallas) on TPUs, each as the two halves that `ops.kernels` describes.

Ring attention runs the two halves apart, which neither of jax's public attentions allows. cuDNN's are calls of XLA, see
`ops.cudnn`. Splash's backward half is `_splash_attention_bwd` of jax.experimental; tests/ops/test_flash.py watches it.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from osjax.errors import UserError
from osjax.ops import cudnn
from osjax.ops.kernels import Kernel
from osjax.ops.platform import platform

LANES = 128  # width of a TPU vector register: splash's blocks are multiples of it
BLOCKS = range(1024, 0, -LANES)  # lengths of splash's blocks, best first

CUDNN = Kernel(cudnn.forward, cudnn.backward)


def choose(q_BShd: jax.Array) -> Kernel:
    """The kernel for queries like these. UserError where none can run."""
    where, d = platform(), q_BShd.shape[-1]
    if where == "tpu":
        return SPLASH
    if where != "gpu":
        raise UserError(f'flash attention needs a GPU or a TPU, this is {where}: use "blockwise" instead')
    if q_BShd.dtype not in (jnp.bfloat16, jnp.float16):
        raise UserError(
            f'flash attention on a GPU needs bfloat16, not {q_BShd.dtype}: set dtype="bfloat16" or use "blockwise"'
        )
    if d % 8 or d > 256:
        raise UserError(
            f'flash attention on a GPU needs a head dimension of at most 256 and 8 | d, not {d}: use "blockwise"'
        )
    return CUDNN


# Splash


def _block(length: int) -> int:
    """Length of splash's blocks: the longest that adds at most half a percent of padding to what the shortest would."""
    least = -(-length // LANES) * LANES
    return next(b for b in BLOCKS if -(-length // b) * b <= 1.005 * least or b == LANES)


def _pad(x_BhSd, block):
    return jnp.pad(x_BhSd, ((0, 0), (0, 0), (0, -x_BhSd.shape[2] % block)) + ((0, 0),) * (x_BhSd.ndim - 3))


def _splash_call(q, k, count, interpret):
    """The kernel without a mask, and segment ids that hide keys which are padding."""
    h, block_q, block_k = q.shape[2], _block(q.shape[1]), _block(k.shape[1])
    S, K = (-(-x.shape[1] // b) * b for x, b in ((q, block_q), (k, block_k)))
    sizes = splash.BlockSizes(
        block_q, block_k, block_k, block_q, block_k, block_k, block_q, block_k, use_fused_bwd_kernel=False
    )
    mask = masks.MultiHeadMask([masks.FullMask((S, K))] * h)
    call = splash.make_splash_mha_single_device(mask, block_sizes=sizes, save_residuals=True, interpret=interpret)
    if count is None and K == k.shape[1]:
        return call, None, block_q, block_k
    hidden = jnp.arange(K) >= (k.shape[1] if count is None else count)
    return call, splash.SegmentIds(jnp.zeros(S, jnp.int32), hidden.astype(jnp.int32)), block_q, block_k


def _heads_first(x_BShd):
    return x_BShd.transpose(0, 2, 1, 3)


def _scaled(q):
    return (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)  # splash does not scale


def _splash_forward(q, k, v, count, interpret=False):
    call, segments, block_q, block_k = _splash_call(q, k, count, interpret)
    q_, k_, v_ = (_pad(_heads_first(x), b) for x, b in ((_scaled(q), block_q), (k, block_k), (v, block_k)))
    out_BhSd, (lse_BhS,) = jax.vmap(call, in_axes=(0, 0, 0, None))(q_, k_, v_, segments)
    return _heads_first(out_BhSd)[:, : q.shape[1]], lse_BhS[:, :, : q.shape[1]]


def _splash_backward(q, k, v, count, out, lse, dout, interpret=False):
    call, segments, block_q, block_k = _splash_call(q, k, count, interpret)
    queries = [_pad(_heads_first(x), block_q) for x in (_scaled(q), out, dout)]
    keys = [_pad(_heads_first(x), block_k) for x in (k, v)]
    kept = {name: call.kwargs[name] for name in call.kwargs if name != "save_residuals"}

    def one(q, out, dout, k, v, lse):
        saved = (q, k, v, segments, None, out, lse, call.dq_mask_info, call.dkv_mask_info)
        return splash._splash_attention_bwd(save_residuals=False, **kept, res=saved, do=dout)[3:6]

    dq, dk, dv = jax.vmap(one)(*queries, *keys, _pad(lse, block_q))
    dq = dq.astype(jnp.float32) * q.shape[-1] ** -0.5
    return tuple(_heads_first(g)[:, : x.shape[1]] for g, x in ((dq, q), (dk, k), (dv, v)))


SPLASH = Kernel(_splash_forward, _splash_backward)
