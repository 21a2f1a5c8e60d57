"""Text to image to video: an image model makes the first frame, its weights are freed, the video goes on from there.

Source: Open-Sora scripts/diffusion/inference.py and opensora/utils/inference.py (modify_option_to_t2i).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from osjax.data import buckets, transforms
from osjax.sampling.denoise import OnStep
from osjax.sampling.job import Job
from osjax.sampling.settings import SampleSettings


class ImagePipeline(Protocol):
    """A pipeline that makes images: what the first frames need of `sampling.pipeline.Pipeline`."""

    def stream(
        self, jobs: Sequence[Job], settings: SampleSettings, on_step: OnStep | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(video (1, H, W, 3) uint8, latents) of one job after the other.

        jobs: prompts and seeds, without references. settings: of the images. on_step: called after every step.
        """
        ...

    def free(self) -> None:
        """Give the memory of the weights back."""
        ...


def image_settings(settings: SampleSettings) -> SampleSettings:
    """The settings of the first frame of a video with `settings`: an image of its aspect ratio, at image_resolution.

    Its size is that of the table of training sizes, as in the original, and of the nearest aspect that is there.
    """
    tall = buckets.ratio(settings.aspect_ratio)
    if settings.height is not None and settings.width is not None:
        tall = settings.height / settings.width
    names = buckets.sizes(buckets.pixels(settings.image_resolution))
    aspect = buckets.closest(tall, 1.0, names)
    height, width = names[aspect]
    return replace(
        settings,
        mode="t2v",
        frames=1,
        resolution=settings.image_resolution,
        aspect_ratio=aspect,
        height=height,
        width=width,
        steps=settings.image_steps,
        guidance=settings.image_guidance,
        state_fps=False,
        motion_score=None,
        schedule="shifted",  # what was measured is the video model's
        reuse="none",
    )


def first_frames(
    make_pipeline: Callable[[], ImagePipeline],
    jobs: Sequence[Job],
    settings: SampleSettings,
    size: tuple[int, int],
    on_step: OnStep | None = None,
) -> Iterator[np.ndarray]:
    """A uint8 image (height, width, 3) for each job, as they are made; the image model is freed at the end.

    make_pipeline: loads the image model. jobs, settings: of the videos; prompts, seeds and image_* are taken.
    size: (height, width) in pixels of the videos, which the images cover and are cropped to, as in the original.
    on_step: called after every step.
    """
    pipe = make_pipeline()
    try:
        alone = [replace(job, reference=None, noise_THWC=None) for job in jobs]
        for video, _ in pipe.stream(alone, image_settings(settings), on_step):
            yield transforms.resize_crop_image(video[0], *size)
    finally:
        pipe.free()


def with_first_frames(
    make_pipeline: Callable[[], ImagePipeline], jobs: Sequence[Job], settings: SampleSettings, size: tuple[int, int]
) -> list[Job]:
    """The jobs, each given its first frame as its reference.

    make_pipeline, settings, size: as `first_frames` takes them.
    """
    images = first_frames(make_pipeline, jobs, settings, size)
    return [replace(job, reference=image) for job, image in zip(jobs, images, strict=True)]
