"""What a step of the video model works on: tokens and FLOPs, against the published peak of its devices."""

import jax
import numpy as np
from jax.sharding import Mesh

from osjax.models import video_flops
from osjax.models.velocity import VideoConfig
from osjax.parallel.peak import published_peak
from osjax.training.throughput import Throughput
from osjax.types import LatentBatch, NamedTree


def throughput(model_cfg: VideoConfig, trained: float, mesh: Mesh) -> Throughput:
    """What a batch of a stage counts as: video and text tokens, FLOPs, and the peak of the mesh where it is published.

    model_cfg: of the video model. trained: share of its parameters that train, 0 to 1; 0 for adapters, whose own work
    is small. mesh: the devices of the step.

    FLOPs are of a forward pass, one back to the tokens, and one back to the weights that train, whatever a step
    computes again: the usual three passes where all train.
    """

    def tokens(batch: NamedTree) -> int:
        return video_flops.tokens(model_cfg, _shapes(batch))

    def flops(batch: NamedTree) -> int:
        return int(video_flops.forward_flops(model_cfg, _shapes(batch)) * (2 + trained))

    one = published_peak(mesh.devices.flat[0])
    return Throughput(tokens, flops, one and one * 1e12 * mesh.size)


def _shapes(batch: NamedTree) -> LatentBatch:
    """Shapes of what the model is given for a batch of the loader."""
    latents, txt, vec = (jax.ShapeDtypeStruct(batch[name].shape, np.float32) for name in ("latents", "txt", "vec"))
    return LatentBatch(latents, txt, vec, None)
