"""How a file stores attention weights."""

from dataclasses import dataclass

from osjax.errors import UserError


@dataclass(frozen=True)
class Layout:
    """How a file stores attention weights; import changes them into the one order that the model runs.

    fused_qkv: q, k and v in one tensor. interleaved_rope: rotary pairs are neighbours, not half a head apart.
    diffusers: names and tensors of diffusers' FluxTransformer2DModel, whose projections are never fused.
    """

    fused_qkv: bool
    interleaved_rope: bool
    diffusers: bool = False


OPEN_SORA_V2 = Layout(fused_qkv=False, interleaved_rope=False)
FLUX = Layout(fused_qkv=True, interleaved_rope=True)
FLUX_DIFFUSERS = Layout(fused_qkv=False, interleaved_rope=True, diffusers=True)
LAYOUTS = {"open_sora_v2": OPEN_SORA_V2, "flux": FLUX, "flux_diffusers": FLUX_DIFFUSERS}


def layout_named(name: str, key: str) -> Layout:
    """The layout of this name. key: the flag or config key that gave the name, for the message.

    UserError (status 2) with the names that there are for any other.
    """
    if name not in LAYOUTS:
        raise UserError(f"{key} is {name!r}: use one of {', '.join(LAYOUTS)}", status=2)
    return LAYOUTS[name]
