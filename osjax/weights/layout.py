"""How a file stores attention weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """fused_qkv: q, k and v in one tensor. interleaved_rope: rotary pairs are neighbours, not half a head apart."""

    fused_qkv: bool
    interleaved_rope: bool


OPEN_SORA_V2 = Layout(fused_qkv=False, interleaved_rope=False)
FLUX = Layout(fused_qkv=True, interleaved_rope=True)
LAYOUTS = {"open_sora_v2": OPEN_SORA_V2, "flux": FLUX}
