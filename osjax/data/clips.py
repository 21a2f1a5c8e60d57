"""Procedural captioned clips: a coloured shape moves over a textured background that pans a little.

Drawn from signed distances, so one specification renders at any size with smooth edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from osjax.data.table import COLUMNS, write_csv
from osjax.data.video import write_mp4

COLOURS = {
    "red": (215, 35, 35),
    "green": (30, 170, 50),
    "blue": (45, 75, 230),
    "yellow": (235, 215, 40),
    "purple": (165, 50, 205),
    "white": (248, 248, 248),
}
SHAPES = ("circle", "bar", "pillar", "slash")  # a bar lies, a pillar stands, a slash leans
LONGEST = 1.17  # of all shapes' reaches, in radii
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # x right, y down
BACKGROUNDS = {"striped": 1, "wavy": 2, "cloudy": 5}  # waves that are added up

Combination = tuple[str, str, str]


@dataclass(frozen=True)
class ClipSpec:
    """What a clip shows; lengths as fractions of the side. seed: of the background."""

    colour: str
    shape: str
    direction: str
    background: str
    radius: float  # half of the shape's size
    travel: float  # way of the centre over the whole clip
    centre: tuple[float, float]  # of the way, x and y
    pan: tuple[float, float]  # way of the background over the whole clip
    seed: int

    @property
    def caption(self) -> str:
        """What the clip shows, in a sentence."""
        return f"a {self.colour} {self.shape} moves {self.direction} over a {self.background} background"


def combinations() -> list[Combination]:
    """All (colour, shape, direction)."""
    return list(product(COLOURS, SHAPES, DIRECTIONS))


def split(seed: int = 0) -> tuple[list[Combination], list[Combination]]:
    """The combinations for training and those held out, a quarter of all.

    seed: shifts the pattern. A Latin one: each colour, shape and direction, and each pair of them, keeps most of its
    clips in training.
    """
    held_out = []
    for c, s, d in product(range(len(COLOURS)), range(len(SHAPES)), range(len(DIRECTIONS))):
        if (c + s + d + seed) % 4 == 0:
            held_out.append((list(COLOURS)[c], SHAPES[s], list(DIRECTIONS)[d]))
    return [x for x in combinations() if x not in held_out], held_out


def specs(count: int, seed: int, chosen: Sequence[Combination]) -> list[ClipSpec]:
    """`count` clips that go through the chosen combinations in turn, the rest drawn from the seed."""
    rng = np.random.default_rng(seed)
    order = [chosen[i] for _ in range(-(-count // len(chosen))) for i in rng.permutation(len(chosen))]
    return [_draw(combination, rng) for combination in order[:count]]


def _draw(combination: Combination, rng: np.random.Generator) -> ClipSpec:
    colour, shape, direction = combination
    radius, travel = rng.uniform(0.18, 0.25), rng.uniform(0.26, 0.4)
    half_way = np.abs(DIRECTIONS[direction]) * travel / 2
    margin = LONGEST * radius + half_way
    centre = rng.uniform(margin, 1 - margin)
    return ClipSpec(
        colour,
        shape,
        direction,
        list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))],
        float(radius),
        float(travel),
        tuple(float(x) for x in centre),
        tuple(float(x) for x in rng.uniform(-0.06, 0.06, 2)),
        int(rng.integers(2**31)),
    )


def render(spec: ClipSpec, size: int, frames: int = 8) -> np.ndarray:
    """The clip that `spec` describes, as uint8 (frames, size, size, 3)."""
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    texture = _texture(spec)
    colour = np.array(COLOURS[spec.colour], np.float64)
    step = np.array(DIRECTIONS[spec.direction])
    out = np.empty((frames, size, size, 3), np.uint8)
    for i, at in enumerate(np.linspace(-0.5, 0.5, frames)):
        cx, cy = np.array(spec.centre) + step * spec.travel * at
        px, py = np.array(spec.pan) * at
        outline = distance(spec.shape, x - cx, y - cy, spec.radius)
        cover = np.clip(0.5 - outline * size, 0, 1)[..., None]  # one pixel of soft edge
        out[i] = np.round(texture(x + px, y + py) * (1 - cover) + colour * cover)
    return out


def _texture(spec: ClipSpec):
    """A smooth grey pattern with a slight tint, dark enough to tell from white, too grey to be a colour."""
    rng = np.random.default_rng(spec.seed)
    base, contrast = rng.uniform(70, 120), rng.uniform(7, 12)
    waves = rng.uniform([-1.5, -1.5, 0], [1.5, 1.5, 2 * np.pi], (BACKGROUNDS[spec.background], 3))
    tint = 1 + rng.uniform(-0.06, 0.06, 3)

    def at(x, y):
        pattern = sum(np.sin(2 * np.pi * (a * x + b * y) + phase) for a, b, phase in waves) / np.sqrt(len(waves))
        return np.clip((base + contrast * pattern)[..., None] * tint, 0, 255)

    return at


def distance(shape: str, u: np.ndarray, v: np.ndarray, r: float) -> np.ndarray:
    """Signed distance to the outline of a shape of radius `r`, negative inside.

    u, v: places right of and below the centre, in the unit of r. No shape reaches farther than LONGEST * r along an
    axis.
    """
    if shape == "circle":
        return np.hypot(u, v) - r
    if shape == "slash":
        u, v = (u + v) / np.sqrt(2), (u - v) / np.sqrt(2)  # a pillar leaning to the right
    across, down = (1.15 * r, 0.5 * r) if shape == "bar" else (0.5 * r, 1.15 * r)
    return np.maximum(abs(u) - across, abs(v) - down)


def write_clips(folder: Path, clips: Sequence[ClipSpec], size: int, frames: int, fps: int) -> Path:
    """Render every clip to `folder/NNNNN.mp4` and list them in `folder/clips.csv`; returns the CSV's path.

    size: pixels of a side. frames: of a clip. fps: frames per second.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, spec in enumerate(tqdm(clips, desc=f"clips {folder.name}", unit="clip", mininterval=1)):
        path = folder / f"{i:05d}.mp4"
        write_mp4(path, render(spec, size, frames), fps, crf=12)
        values = (path.name, spec.caption, frames, size, size, 1.0, size * size, fps)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    write_csv(folder / "clips.csv", rows)
    return folder / "clips.csv"
