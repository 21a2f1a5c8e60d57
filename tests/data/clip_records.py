"""Records of a data set's clips, as loaders read them."""

from osjax.data import clips, video


def of_clips(count: int) -> list[dict]:
    """So many captioned clips of eight frames, 32 pixels a side."""
    chosen = clips.specs(count, 0, clips.combinations())
    return [
        {
            "video": video.encode(clips.render(spec, 32), 8),
            "text": spec.caption.encode(),
            "path": f"{number}.mp4".encode(),
            "num_frames": 8,
            "fps": 8.0,
        }
        for number, spec in enumerate(chosen)
    ]
