"""Near-duplicates among clips, by perceptual hashes of three of their frames.

Two hashes that differ in at most 7 of 192 bits agree in one of eight bands of 24 bits at least, so only clips that
share a band are compared: near-linear in the number of clips, 24 bytes a clip.
"""

from collections.abc import Sequence

import numpy as np

from osjax.curation.isolate import need

BANDS = 8
BYTES = 24
MOST = BANDS - 1  # bits; beyond it a pair may share no band


def perceptual_hash(images: Sequence[np.ndarray]) -> str:
    """The score `hash`: perceptual hashes of the first, middle and last of some images, 16 hex digits each.

    images: uint8 (H, W, 3).
    """
    from PIL import Image

    imagehash = need("imagehash", "data")
    shown = images[0], images[len(images) // 2], images[-1]
    return "".join(str(imagehash.phash(Image.fromarray(image))) for image in shown)


def find(paths: Sequence[str], hashes: Sequence[str], distance: int = MOST) -> dict[str, str]:
    """The repetitions {path: path of an earlier clip that it repeats}.

    paths: in the order of the table. hashes: of those, 48 hex digits each. distance: bits, at most `MOST`. The first of
    a group in the table's order stays. ValueError for a larger distance.
    """
    if not 0 <= distance <= MOST:
        raise ValueError(f"distance {distance} is not in 0 to {MOST}")
    codes = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, BYTES)
    twin = np.arange(len(codes))
    for band in codes.reshape(-1, BANDS, BYTES // BANDS).transpose(1, 0, 2).astype(np.uint32):
        keys = band[:, 0] << 16 | band[:, 1] << 8 | band[:, 2]
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) > 0, True])
        for begin, end in zip(starts, starts[1:], strict=False):
            if end - begin > 1:
                _mark(codes, order[begin:end], distance, twin)
    return {paths[i]: paths[twin[i]] for i in np.flatnonzero(twin != np.arange(len(twin)))}


def _mark(codes: np.ndarray, members: np.ndarray, distance: int, twin: np.ndarray) -> None:
    """Among clips that share a band, each that is near an earlier one takes it as its twin.

    Groups are not the connected components of near pairs: a chain of small changes, such as frames of one scene, would
    then be a single group, of which only its first clip stays.
    """
    while len(members) > 1:
        first, rest = members[0], members[1:]
        near = np.bitwise_count(codes[rest] ^ codes[first]).sum(1) <= distance
        close = rest[near]
        twin[close] = np.minimum(twin[close], twin[first])
        members = rest[~near]
