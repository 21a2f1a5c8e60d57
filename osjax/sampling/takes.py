"""What a video model and an autoencoder take of what is asked for, in words that name what they would."""

import flax.linen as nn

from osjax.errors import UserError
from osjax.sampling.autoencoder import Autoencoder
from osjax.sampling.settings import SampleSettings


def check(module: nn.Module, ae: Autoencoder, settings: SampleSettings, T: int) -> None:
    """UserError for a mode or a number of frames that these models cannot take.

    module: the video model. ae: the autoencoder. settings: what is asked for. T: latent frames of that.
    """
    mode = settings.condition
    if mode.references and not module.inputs.condition:
        raise UserError(f"this model takes no condition (cond_embed is off), so mode {settings.mode} cannot be used")
    if not mode.fits(T, ae.causal, ae.time_compression):
        given = max(reference.pixel_frames(ae.causal) for reference in mode.references)
        raise UserError(
            f"{settings.frames} frames leave nothing to generate in mode {settings.mode}, whose reference is "
            f"{given} frames: ask for {given + ae.time_compression} or more"
        )
    if (decoded := ae.decoded_frames(settings.frames)) < settings.frames:
        raise UserError(
            f"{settings.frames} frames decode to {decoded} in the autoencoder's tiles: ask for "
            f"{' or '.join(map(str, _whole_frames(ae, settings.frames)))}"
        )


def _whole_frames(ae: Autoencoder, frames: int) -> list[int]:
    """The nearest numbers of frames below and above that decode whole."""
    lower = range(frames - ae.time_compression, 1, -ae.time_compression)
    higher = range(frames + ae.time_compression, 4 * frames, ae.time_compression)
    nearest = (next((n for n in steps if ae.decoded_frames(n) >= n), None) for steps in (lower, higher))
    return [n for n in nearest if n is not None]
