"""Names of columns: those that we use, and what other tools call them."""

import difflib
from collections.abc import Iterable

from osjax.errors import UserError

REQUIRED = ("path", "text")
ALIASES = {"path": ("file_name", "video"), "text": ("caption", "prompt")}


def renamed(names: Iterable[str], where: object) -> dict[str, str]:
    """{a table's own name: ours} of the columns that every table must have.

    names: of its columns. where: the table, for messages. UserError for a column that is missing, with the nearest one
    that is there, and where two columns may be meant.
    """
    names, out, missing = list(names), {}, []
    for ours in REQUIRED:
        theirs = [ours] if ours in names else [name for name in ALIASES[ours] if name in names]
        if len(theirs) > 1:
            raise UserError(
                f"{where} has the columns {' and '.join(theirs)}, either of which may be {ours}: rename one"
            )
        missing += [] if theirs else [ours]
        out |= {name: ours for name in theirs}
    if missing:
        known = {alias: ours for ours in missing for alias in (ours, *ALIASES[ours])}
        near = [(name, *difflib.get_close_matches(name.lower(), known, n=1)) for name in names]
        hint = "".join(f"; did you mean {pair[1]} by {pair[0]}?" for pair in near if len(pair) > 1)
        raise UserError(
            f"{where} lacks the column {', '.join(missing)}; it has {', '.join(names)}: rename or add it{hint}"
        )
    return out
