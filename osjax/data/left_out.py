"""Why clips are in no batch, with the key that lets them in."""

from collections.abc import Mapping

import numpy as np

from osjax.data.buckets import ENOUGH_PIXELS, Buckets, pixels
from osjax.data.choose import frames_left
from osjax.data.schedule import Pass

TABLE = "clips.txt"  # in the folder of a stage: which clips it trains on and which are left out, as a table


def reasons(entries: np.ndarray, table: Buckets, first: Pass, sizes: Mapping) -> dict[str, np.ndarray]:
    """Numbers of the clips that the first pass leaves out, by what keeps them out.

    entries: of an index. table: the buckets. first: the pass. sizes: of the batches of each bucket.
    """
    out: dict[str, np.ndarray] = {}
    for bucket, members in sorted(first.members.items()):
        if bucket not in first.counts:
            where = f"{bucket.resolution}, {bucket.num_frames} frames, {bucket.aspect}"
            out[f"fill no batch of {sizes[bucket]} of {where}: data.fill repeats clips"] = np.asarray(members)
    known = np.concatenate([np.asarray(m) for m in first.members.values()]) if first.members else np.zeros(0, int)
    unfit = np.setdiff1d(np.arange(len(entries)), known)
    if len(unfit):
        kinds = np.array([_unfit(entries[at], table) for at in unfit])
        out |= {str(kind): unfit[kinds == kind] for kind in np.unique(kinds)}
    return out


def _unfit(entry: np.void, table: Buckets) -> str:
    smallest = min(table.rules, key=pixels)
    videos = sorted({frames for rules in table.rules.values() for frames in rules if frames > 1})
    left = int(frames_left(np.array([entry]), table.fps_max)[0])
    if int(entry["height"]) * int(entry["width"]) < pixels(smallest) * ENOUGH_PIXELS:
        few = f"have fewer than {ENOUGH_PIXELS:.0%} of the pixels of {smallest}"
        return f"{few}: a smaller resolution in data.buckets or data.choose lets them in"
    if left == 1:
        return "are images, and no bucket is of 1 frame: data.buckets or data.choose.images lets them in"
    if not videos:
        return "are videos, and all buckets are of images: data.buckets lets them in"
    if left < videos[0]:
        short = f"are shorter than the {videos[0]} frames of the shortest bucket at {table.fps_max:g} frames per second"
        return f"{short}: fewer frames in data.buckets, or a higher data.fps_max, lets them in"
    return "drew no bucket in the first pass: keep of 1.0 in data.buckets lets all in"
