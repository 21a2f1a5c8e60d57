"""Procedural captioned clips: a coloured shape moves, slowly or fast, over a patterned background that pans a little.

Drawn from signed distances and waves, so one specification renders at any size with smooth edges.
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
STAR = "star"  # which no clip of the demo shows: data/star.py
POINTS, TIP, NOTCH = 4, 1.4, 0.55  # of a star, lengths in radii: it covers about what a bar does
SOFT_EDGE = 2  # pixels from an object's colour to the background's, as a lens draws them
LONGEST = 1.17  # of all shapes' reaches, in radii
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # x right, y down
BACKGROUNDS = ("plain", "striped", "wavy", "cloudy")
TINTS = {"warm": ((66, 50, 38), (134, 102, 76)), "cold": ((36, 54, 72), (82, 112, 138))}  # darkest and lightest
SPEEDS = {1: (0.1, 0.14), 4: (0.24, 0.29), 7: (0.4, 0.46)}  # motion score -> way over the whole clip, from and to
WORDS = ("colour", "shape", "direction", "tint", "background", "motion")  # of a ClipSpec: what captions say
DRAWING = 2  # raised where the same specification begins to look different, so that old clips are not taken for new

Combination = tuple[str, str, str]


@dataclass(frozen=True)
class ClipSpec:
    """What a clip shows; lengths as fractions of the side. motion: its score, a key of SPEEDS. seed: of the pattern."""

    colour: str
    shape: str
    direction: str
    background: str
    tint: str
    motion: int
    radius: float  # half of the shape's size
    travel: float  # way of the centre over the whole clip
    centre: tuple[float, float]  # of the way, x and y
    pan: tuple[float, float]  # way of the background over the whole clip
    seed: int

    @property
    def caption(self) -> str:
        """What the clip shows, in a sentence; data sets state the motion score behind it."""
        scene = f"{self.tint} {self.background} background"
        return f"a {self.colour} {self.shape} moves {self.direction} over a {scene}"


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
    background, tint = BACKGROUNDS[rng.integers(len(BACKGROUNDS))], list(TINTS)[rng.integers(len(TINTS))]
    motion = list(SPEEDS)[rng.integers(len(SPEEDS))]
    radius, travel = rng.uniform(0.17, 0.22), rng.uniform(*SPEEDS[motion])
    half_way = np.abs(DIRECTIONS[direction]) * travel / 2
    margin = LONGEST * radius + half_way
    centre = rng.uniform(margin, 1 - margin)
    return ClipSpec(
        colour,
        shape,
        direction,
        background,
        tint,
        motion,
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
    out = np.empty((frames, size, size, 3), np.uint8)
    covers = np.clip(0.5 - outlines(spec, size, frames) * size / SOFT_EDGE, 0, 1)
    for i, (at, cover) in enumerate(zip(_moments(frames), covers, strict=True)):
        px, py = np.array(spec.pan) * at
        out[i] = np.round(texture(x + px, y + py) * (1 - cover[..., None]) + colour * cover[..., None])
    return out


def outlines(spec: ClipSpec, size: int, frames: int = 8) -> np.ndarray:
    """Distance of every pixel to the object's outline, (frames, size, size) in sides, negative inside the object.

    spec: what the clip shows. size: pixels of a side.
    """
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    step = np.array(DIRECTIONS[spec.direction])
    centres = [np.array(spec.centre) + step * spec.travel * at for at in _moments(frames)]
    return np.stack([distance(spec.shape, x - cx, y - cy, spec.radius) for cx, cy in centres])


def _moments(frames: int) -> np.ndarray:
    """Where on its way a clip is in each frame: from -1/2, its beginning, to 1/2."""
    return np.linspace(-0.5, 0.5, frames)


def _texture(spec: ClipSpec):
    """The background as a function of place: its pattern between the two shades of its tint, none of them a colour."""
    pattern, (dark, light) = _pattern(spec.background, np.random.default_rng(spec.seed)), np.array(TINTS[spec.tint])

    def at(x, y):
        return dark + (light - dark) * np.clip(0.5 + 0.5 * pattern(x, y), 0, 1)[..., None]

    return at


def _pattern(background: str, rng: np.random.Generator):
    """A kind of background as a function of place, about from -1 to 1."""
    turn, phase, other = rng.uniform(0, 2 * np.pi, 3)
    if background == "plain":
        level = rng.uniform(-0.3, 0.3)
        return lambda x, y: np.full_like(x, level)
    if background == "cloudy":
        # Directions all around, so that clouds never line up to stripes.
        turns = turn + np.pi / 5 * (np.arange(5) + rng.uniform(-0.2, 0.2, 5))
        waves = [(a, rng.uniform(1.2, 2.0), rng.uniform(0, 2 * np.pi)) for a in turns]
        return lambda x, y: 0.75 * sum(np.sin(_phase(x, y, a, cycles) + p) for a, cycles, p in waves) / np.sqrt(5 / 2)
    cycles = rng.uniform(3.2, 3.8)
    if background == "striped":
        lean = rng.uniform(-0.1, 0.1)
        return lambda x, y: np.sin(_phase(x, y, lean, cycles) + phase)
    # Wavy: stripes that lie and whose line swings up and down.
    swing = rng.uniform(0.055, 0.065)
    return lambda x, y: np.sin(2 * np.pi * cycles * (y + swing * np.sin(4 * np.pi * x + other)) + phase)


def _phase(x: np.ndarray, y: np.ndarray, turn: float, cycles: float) -> np.ndarray:
    """Of a plane wave: so many cycles a side along the direction at an angle."""
    return 2 * np.pi * cycles * (np.cos(turn) * x + np.sin(turn) * y)


def distance(shape: str, u: np.ndarray, v: np.ndarray, r: float, notch: float = NOTCH) -> np.ndarray:
    """Signed distance to the outline of a shape of radius `r`, negative inside.

    u, v: places right of and below the centre, in the unit of r. notch: where a star's edges meet between its tips, in
    radii. No shape reaches farther than LONGEST * r along an axis, but for a star, which reaches TIP * r.
    """
    if shape == "circle":
        return np.hypot(u, v) - r
    if shape == STAR:  # a quarter of it, folded in half, has one edge from a tip inwards
        part = 2 * np.pi / POINTS
        turn = abs((np.arctan2(u, -v) + part / 2) % part - part / 2)
        tip, inner = np.array((TIP * r, 0.0)), notch * r * np.array((np.cos(part / 2), np.sin(part / 2)))
        outward = np.array((inner[1], tip[0] - inner[0])) / np.hypot(*(tip - inner))
        return outward[0] * (np.hypot(u, v) * np.cos(turn) - tip[0]) + outward[1] * np.hypot(u, v) * np.sin(turn)
    if shape == "slash":
        u, v = (u + v) / np.sqrt(2), (u - v) / np.sqrt(2)  # a pillar leaning to the right
    across, down = (1.15 * r, 0.5 * r) if shape == "bar" else (0.5 * r, 1.15 * r)
    return np.maximum(abs(u) - across, abs(v) - down)


def write_clips(folder: Path, clips: Sequence[ClipSpec], size: int, frames: int, fps: int) -> Path:
    """Render every clip to `folder/NNNNN.mp4` and list them in `folder/clips.csv`; returns the CSV's path.

    Its column motion has the scores, as `osjax data score` gives them to clips that were filmed.

    size: pixels of a side. frames: of a clip. fps: frames per second.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, spec in enumerate(tqdm(clips, desc=f"clips {folder.name}", unit="clip", mininterval=1)):
        path = folder / f"{i:05d}.mp4"
        write_mp4(path, render(spec, size, frames), fps, crf=12)
        values = (path.name, spec.caption, frames, size, size, 1.0, size * size, fps)
        rows.append({**dict(zip(COLUMNS, values, strict=True)), "motion": spec.motion})
    write_csv(folder / "clips.csv", rows)
    return folder / "clips.csv"
