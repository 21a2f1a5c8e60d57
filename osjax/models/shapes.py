"""What differs between two tables of shapes: of parameters that are stored somewhere, and of the model they are for."""

import operator
from collections.abc import Callable, Mapping, Sequence

LONGEST = 240  # characters of a problem; names in files may be of any length
Path = tuple[str, ...]
Shape = tuple[int, ...]


def differences(
    there: Mapping[Path, Shape],
    model: Mapping[Path, Shape],
    fits: Callable[[Shape | None, Shape | None], bool] = operator.eq,
) -> list[str]:
    """A phrase such as `img_in/bias is (64,) there and nothing in the model` for each leaf that differs, by name.

    there, model: shapes by the path in the params tree. fits(there, model): whether two shapes agree, None standing
    for a leaf that is not.
    """
    return [
        f"{'/'.join(path)} is {there.get(path, 'nothing')} there and {model.get(path, 'nothing')} in the model"
        for path in sorted(there.keys() | model.keys())
        if not fits(there.get(path), model.get(path))
    ]


def listed(problems: Sequence[str], most: int) -> str:
    """The first `most` problems in one line, each cut to `LONGEST`, and how many more there are."""
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(p if len(p) <= LONGEST else p[:LONGEST] + "..." for p in problems[:most]) + more
