"""What a table of clips holds: every number in it, reasons of what was dropped, frames of some clips."""

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from osjax.curation import sample, tables
from osjax.curation.isolate import Pool
from osjax.curation.tables import Row

WIDTH = 240  # pixels of an example frame


@dataclass(frozen=True)
class Summary:
    """What a table holds.

    name: of the table. count: of its clips. numbers: values of every column of numbers, by name. shown: rows of some
    clips with their middle frame as JPEG bytes, `jpeg`, or a `reason`. reasons: clips dropped by stage.
    """

    name: str
    count: int
    numbers: Mapping[str, Sequence[float]]
    shown: Sequence[Row]
    reasons: Counter


def summary(source: Path | str, pool: Pool, examples: int = 24, root: str | None = None, seed: int = 0) -> Summary:
    """Look through a table, which is read once.

    source: the table; that of the dropped beside it, when there is one, is counted by stage. pool: decodes the frames
    of `examples` clips, drawn evenly by `seed`. root: the folder that all clips lie in.
    """
    numbers, drawn, count = _read(tables.rows(source, root), examples, np.random.default_rng(seed))
    dropped = Path(source).with_suffix(f".dropped{Path(source).suffix}")
    reasons = Counter(row.get("stage") or "-" for row in tables.rows(dropped, "/")) if dropped.exists() else Counter()
    return Summary(Path(source).name, count, numbers, pool.each(example, drawn), reasons)


def _read(rows, examples: int, rng: np.random.Generator) -> tuple[dict[str, list[float]], list[Row], int]:
    """Numbers by column, a uniform sample of rows (reservoir), and how many rows there were."""
    numbers, drawn, count = {}, [], 0
    for count, row in enumerate(rows, 1):
        for name, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < np.inf:
                numbers.setdefault(name, []).append(float(value) if abs(value) < 1e300 else math.copysign(1e300, value))
        numbers.setdefault("words of the caption", []).append(len(str(row.get("text") or "").split()))
        at = len(drawn) if len(drawn) < examples else int(rng.integers(count))
        drawn[at : at + 1] = [row] if at < examples else drawn[at : at + 1]
    return numbers, drawn, count


def example(row: Row) -> list[Row]:
    """The row with its middle frame as JPEG bytes, `jpeg`."""
    (middle_HWC,) = sample.uniform(row, 1)
    image, file = Image.fromarray(middle_HWC), io.BytesIO()
    image.thumbnail((WIDTH, 4 * WIDTH))
    image.save(file, "JPEG", quality=80)
    return [{**row, "jpeg": file.getvalue()}]
