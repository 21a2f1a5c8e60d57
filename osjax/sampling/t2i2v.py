"""Text to image to video: an image model makes the first frame, its weights are freed, the video goes on from there.

Source: Open-Sora scripts/diffusion/inference.py and opensora/utils/inference.py (modify_option_to_t2i).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from osjax.data import buckets
from osjax.sampling.settings import SampleSettings

if TYPE_CHECKING:
    from osjax.sampling.pipeline import Job, Pipeline


def image_settings(settings: SampleSettings) -> SampleSettings:
    """Settings of the first frame: one image of the video's aspect ratio at its own resolution."""
    aspect = settings.aspect_ratio
    if settings.height is not None and settings.width is not None:
        names = buckets.sizes(buckets.pixels(settings.image_resolution), training=False)
        aspect = buckets.closest(settings.height, settings.width, names)
    return replace(
        settings,
        mode="t2v",
        frames=1,
        resolution=settings.image_resolution,
        aspect_ratio=aspect,
        height=None,
        width=None,
        steps=settings.image_steps,
        guidance=settings.image_guidance,
        state_fps=False,
        motion_score=None,
    )


def first_frames(
    make_pipeline: Callable[[], "Pipeline"],
    jobs: Sequence["Job"],
    settings: SampleSettings,
    size: tuple[int, int],
    on_step: Callable[[], None] | None = None,
) -> Iterator[np.ndarray]:
    """A uint8 image (height, width, 3) for each job, as they are made; the image model is freed at the end."""
    pipe = make_pipeline()
    try:
        alone = [replace(job, reference=None, noise_THWC=None) for job in jobs]
        for video, _ in pipe.stream(alone, image_settings(settings), on_step):
            yield np.asarray(Image.fromarray(video[0]).resize(size[::-1], Image.Resampling.BILINEAR))
    finally:
        pipe.free()


def with_first_frames(make_pipeline, jobs, settings, size) -> list["Job"]:
    """The jobs, each given its first frame."""
    images = first_frames(make_pipeline, jobs, settings, size)
    return [replace(job, reference=image) for job, image in zip(jobs, images, strict=True)]
