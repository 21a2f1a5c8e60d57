"""Features of a few clips by stand-ins for the models; one of two processes."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from osjax.data import bucketed, buckets, dataset, index, schedule
from osjax.parallel import mesh as meshes
from osjax.stages import features

BATCH, SHARD = 4, 8


class Pooled:
    """Latents are means of 8 x 8 pixels, text features count letters. broken: fails at the call of this number."""

    states_dtype = "bfloat16"

    def __init__(self, broken: int = -1):
        self.broken, self.calls = broken, 0

    def to_cache(self, video_BTHWC):
        self.calls += 1
        if self.calls == self.broken:
            raise RuntimeError("the device is gone")
        B, T, H, W, C = video_BTHWC.shape
        latents = video_BTHWC.reshape(B, T, H // 8, 8, W // 8, 8, C).mean((3, 5))
        return {"latents": latents, "head_image": latents[:, :1]}

    def cached_shapes(self, shape):
        T, H, W = shape
        return {"latents": (T, H // 8, W // 8, 3), "head_image": (1, H // 8, W // 8, 3)}

    def encode_text(self, texts):
        counts = np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts], np.float32)
        return np.repeat(counts[:, None], 3, 1), counts


def clips_of(source: Path) -> features.Clips:
    records = dataset.open_source(source)
    table = buckets.Buckets({"64px": {8: buckets.Rule(1.0, BATCH)}}, 16, 24)
    members = index.group(records.index(), table, 0).members(0)
    plan = schedule.plan(members, {bucket: BATCH for bucket in members}, 0)
    return features.Clips(records, plan, table, {"autoencoder": "a", "text": "t"}, Pooled().cached_shapes)


def make(source: Path, out: Path, encode: Pooled) -> features.Features:
    mesh = meshes.make(data=2, sequence=-1)
    encode.to_cache = jax.jit(encode.to_cache) if encode.broken < 0 else encode.to_cache
    return features.make(out, clips_of(source), encode, mesh, shard=SHARD)


def main(argv: list[str]) -> None:
    source, out, address, number = argv
    meshes.initialize(address, 2, int(number))
    found = make(Path(source), Path(out), Pooled())
    batch = next(found.batches(bucketed.Readers(1)))
    rows = {"latents": float(jnp.sum(batch["latents"])), "index": [int(i) for i in batch["index"]]}
    print(json.dumps({"files": sorted(p.name for p in Path(out).rglob("*.array_record*")), **rows}))
