"""How far adapters of the demo's model get with a shape that it never saw, a star, from a few clips.

`python -m tests.measures.star DEMO [NAME=NUMBER ...]`, on the workdir of `osjax demo`: trains, prints a line of JSON,
and writes star.png, samples before and after, here. Twenty clips of stars lie over plain backgrounds at
motion score 4, in 18 of the 24 combinations of colour and direction; the samples are of the other six, over all
backgrounds. Names: stars, old, shifts, steps, rate, share, rank, samples, seed; see `Asked`.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax import models
from osjax.data import clips, star
from osjax.evals import prompt_match
from osjax.models import lora
from osjax.pages import figures
from osjax.parts import pipeline
from osjax.sampling.autoencoder import to_float
from osjax.sampling.pipeline import Pipeline
from osjax.training import diffusion, optimizer
from osjax.training.draw import Draw

TARGETS = ("*_blocks/*attn/qkv", "*_blocks/*proj", "*_blocks/*mlp*")
KNOWN, PLACES, SIZE, FRAMES, BATCH, SHIFT = (*clips.SHAPES, clips.STAR), 8, 80, 8, 32, 4.0
WAYS = list(enumerate(clips.DIRECTIONS))
ALL = [(colour, clips.STAR, way, (i + j) % 4) for (i, colour), (j, way) in product(enumerate(clips.COLOURS), WAYS)]


@dataclass(frozen=True)
class Asked:
    """stars, old: clips of stars and of the demo's shapes. shifts: moved copies of each clip of a star.
    steps, rate, rank: of training. share: of the stars in a batch. samples: read at the end, of unseen
    combinations. seed: of everything.
    """

    stars: int = 20
    old: int = 800
    shifts: int = 12
    steps: int = 300
    rate: float = 8e-3
    share: float = 0.7
    rank: int = 16
    samples: int = 24
    seed: int = 0


def stars(count: int, seed: int, of_training: bool) -> list[clips.ClipSpec]:
    """Specifications of stars of training's combinations, over plain backgrounds and at one speed, or of the others."""
    chosen = [combination for *combination, left in ALL if (left != 0) == of_training]
    specs = star.stars(count, seed, [tuple(combination) for combination in chosen])
    return [_still(spec) for spec in specs] if of_training else specs


def _still(spec: clips.ClipSpec) -> clips.ClipSpec:
    travel = float(np.mean(clips.SPEEDS[4]))
    room = clips.TIP * spec.radius + np.abs(clips.DIRECTIONS[spec.direction]) * travel / 2
    centre = np.clip(spec.centre, np.minimum(room, 0.5), np.maximum(1 - room, 0.5))
    return replace(spec, background="plain", motion=4, travel=travel, centre=tuple(float(x) for x in centre))


def shifted(video_THWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A clip moved by a few pixels; what comes in repeats the edge, which a plain background does not show."""
    wide = np.pad(video_THWC, ((0, 0), (PLACES, PLACES), (PLACES, PLACES), (0, 0)), mode="edge")
    y, x = rng.integers(0, 2 * PLACES + 1, 2)
    return wide[:, y : y + SIZE, x : x + SIZE]


class Clips:
    """Latents and texts of clips. pipe: of the demo. specs: of the clips. shifts, seed: see `Asked`."""

    def __init__(self, pipe: Pipeline, specs: Sequence[clips.ClipSpec], shifts: int, seed: int):
        rng, videos = np.random.default_rng(seed), []
        for spec in specs:
            video = clips.render(spec, SIZE, FRAMES)
            videos += [video, *(shifted(video, rng) for _ in range(shifts))]
        with pipe._autoencoder_on_device() as ae:
            parts = [np.stack(videos[i : i + 20]) for i in range(0, len(videos), 20)]
            self.latents = np.concatenate([np.asarray(ae.encode(jnp.asarray(to_float(part)))) for part in parts])
        told = [f"{spec.caption} {spec.motion} motion score." for spec in specs for _ in range(shifts + 1)]
        self.txt, self.vec = pipe.text_encoder.encode_batch(told)

    def draw(self, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        at = rng.choice(len(self.latents), count, replace=count > len(self.latents))
        return {"latents": self.latents[at], "txt": self.txt[at], "vec": self.vec[at]}


def train(pipe: Pipeline, params: dict, asked: Asked) -> lora.Adapted:
    """Adapters of the demo's model, trained as asked. params: of the model."""
    null = tuple(map(jnp.asarray, pipe.text_encoder.encode_batch([""])))
    draw = Draw(pipe.module.inputs, {"t2v": 1.0}, pipe._autoencoder.module.stride, null, 0.1, 0.1)
    loss = diffusion.make_loss(pipe.module, draw, alpha=SHIFT)
    cfg = lora.LoRAConfig(asked.rank, float(asked.rank), TARGETS)
    adapters = nn.unbox(lora.create(cfg, models.abstract_params(pipe.module.cfg), jax.random.key(asked.seed)))
    rule = {"lr": asked.rate, "b2": 0.99, "eps": 1e-8, "schedule": "cosine", "final_lr_ratio": 0.05}
    tx = optimizer.make(optimizer.OptimizerConfig(**rule, warmup_steps=20, decay_steps=asked.steps))
    new = Clips(pipe, stars(asked.stars, asked.seed, True), asked.shifts, asked.seed)
    old = Clips(pipe, clips.specs(asked.old, 1, clips.split()[0]), 0, 0) if asked.old else None
    count = round(BATCH * asked.share) if old else BATCH

    @jax.jit
    def step(adapters, state, rows, key):
        grads = jax.grad(lambda a: loss(lora.Adapted(params, a, cfg.scale), {**rows, "references": {}}, key)[0])(
            adapters
        )
        updates, state = tx.update(grads, state, adapters)
        return jax.tree.map(jnp.add, adapters, updates), state

    state, rng = tx.init(adapters), np.random.default_rng(asked.seed)
    for number in range(asked.steps):
        rows = new.draw(count, rng)
        if old:
            more = old.draw(BATCH - count, rng)
            rows = {name: np.concatenate([x, more[name]]) for name, x in rows.items()}
        adapters, state = step(adapters, state, rows, jax.random.fold_in(jax.random.key(asked.seed), number))
    return lora.Adapted(params, jax.block_until_ready(adapters), cfg.scale)


def sampled(pipe: Pipeline, params: dict | lora.Adapted, specs: Sequence[clips.ClipSpec]) -> np.ndarray:
    """Samples of the captions of specifications, by the model with these parameters."""
    made = Pipeline(pipe.module, lora.merged(params), pipe._autoencoder, pipe.text_encoder, settings=pipe.settings)
    return made([spec.caption for spec in specs], seeds=range(len(specs)), motion_score=4).videos_BTHWC


def right(videos_BTHWC: np.ndarray, specs: Sequence[clips.ClipSpec]) -> dict[str, float]:
    """Shares of samples whose shape, colour and direction are those of their specifications."""
    read = [prompt_match.read(video, KNOWN).right(spec) for video, spec in zip(videos_BTHWC, specs, strict=True)]
    return {word: round(float(np.mean([one[word] for one in read])), 3) for word in ("shape", "colour", "direction")}


def main(demo: str, *given: str) -> None:
    numbers = dict(pair.split("=") for pair in given)
    kinds = {name: type(value) for name, value in vars(Asked()).items()}
    asked = Asked(**{name: kinds[name](value) for name, value in numbers.items()})
    pipe = pipeline.from_checkpoint(demo)
    with pipe._params.on_device() as placed:
        params = jax.tree.map(jnp.asarray, placed)
    began = time.process_time()
    adapted = train(pipe, params, asked)
    spent = time.process_time() - began
    unseen = stars(asked.samples, 77 + asked.seed, False)
    old = clips.specs(asked.samples, 79 + asked.seed, clips.combinations())
    before, after = (sampled(pipe, model, unseen) for model in (params, adapted))
    line = {"asked": vars(asked), "training_cpu_seconds": round(spent), "stars": right(after, unseen)}
    line["old"], line["old_before"] = (right(sampled(pipe, model, old), old) for model in (adapted, params))
    print(json.dumps(line))
    rows = [video for pair in zip(before[:6], after[:6], strict=True) for video in pair]
    captions = [f"{when}: {spec.caption}" for spec in unseen[:6] for when in ("before", "after")]
    figures.contact_sheet(Path("star.png"), rows, captions)


if __name__ == "__main__":
    main(*sys.argv[1:])
