"""A plan as tables: Markdown for the terminal, HTML for a browser."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from osjax.pages import page as html

Rows = Sequence[tuple[str, str]]


def stage_table(found: Mapping[str, Any]) -> str:
    """A stage in Markdown: its figures, its collectives, its buckets. found: as `planning.stage.plan` gives it."""
    parts = [markdown(("", found["stage"]), figures(found))]
    parts.append(markdown(("collective", "mesh axes", "times", "GB a device and step"), _sent(found)))
    parts.append(markdown(BUCKETS, _buckets(found)))
    return "\n\n".join(parts)


def figures(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a stage needs and costs, in words: (name, value). found: as `planning.stage.plan` gives it."""
    largest, bound, compiled = found["largest"], found["bound"], found["compiled"]
    mesh = ", ".join(f"{axis} {size}" for axis, size in found["mesh"].items() if size > 1) or "one device"
    rows = [
        ("mesh", mesh),
        ("parameters", f"{found['parameters'] / 1e9:.2f} billion"),
        ("largest bucket", f"{_size(largest)}, batch {largest['batch']}, {largest['tokens']:,} tokens a clip"),
        ("FLOPs of its step (3 forward passes)", f"{3 * largest['forward_flops']:.3g}"),
    ]
    if compiled:
        parts = f"{_gb(compiled['arguments'])} arguments, {_gb(compiled['temporaries'])} temporaries"
        host = f", {_gb(compiled['host'])} pinned on the host" if compiled["host"] else ""
        rows.append(("step, compiled", f"{_gb(compiled['peak'])} ({parts}{host}), in {compiled['seconds']:.0f} s"))
    if made := found["encoding"]:
        rows.append(
            ("encoding of a batch, compiled", f"{_gb(made['temporaries'])} beside the state, between two steps")
        )
    guess = largest["estimate"]
    rows.append(
        (
            "step, by arithmetic",
            f"{_gb(guess['peak'])} ({_gb(guess['state'])} state, {_gb(guess['saved'])} activations)",
        )
    )
    verdict = "fits" if found["fits"] else "DOES NOT FIT"
    rows += [
        ("encoders beside it", _gb(found["encoder_bytes"])),
        ("peak of a device", f"{_gb(found['peak_bytes'])} of {_gb(found['capacity_bytes'])}: {verdict}"),
        (
            "bound of the step",
            f"{bound['seconds']:.2f} s by {bound['by']} (compute {bound['compute']:.2f}, memory {bound['memory']:.2f}, "
            f"links {bound['links']:.2f}), MFU at most {bound['mfu']:.1%}",
        ),
        ("the same step, kernel by kernel", _by_kernel(found["kernels"])),
        ("expected", f"{found['seconds']:.2f} s a step at MFU {largest['mfu']:.1%}, encoding included"),
        ("in all", _cost(found)),
    ]
    if same := found["as_published"]:
        rows.append(("for as many clips as Open-Sora 2.0 took", _cost(same)))
    return rows


def _by_kernel(found: Mapping[str, Any]) -> str:
    names = {"products": "products", "attention": "attention", "elementwise": "the rest of the blocks"}
    names |= {"waiting": "sending between kernels", "optimizer": "optimiser"}
    parts = ", ".join(f"{said} {found[name]:.2f}" for name, said in names.items())
    total = f"{found['seconds']:.2f} s, MFU {found['mfu']:.1%} ({parts}; sending beside them {found['hidden']:.2f})"
    return f"{total}, with {found['rates']}"


def _cost(found: Mapping[str, Any]) -> str:
    return f"{found['steps']:,} steps, {found['days']:.1f} days, {found['dollars']:,.0f} dollars"


BUCKETS = ("bucket", "batch", "tokens a clip", "GB, by arithmetic", "s a step", "clips / s")


def _buckets(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            _size(row),
            str(row["batch"]),
            f"{row['tokens']:,}",
            f"{row['estimate']['peak'] / 1e9:.1f}",
            f"{row['seconds']:.2f}",
            f"{row['clips_per_s']:.3g}",
        )
        for row in found["buckets"]
    ]


def _sent(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (c["kind"], ", ".join(c["axes"]) or "all", str(c["count"] or ""), f"{c['bytes'] / 1e9:.3g}")
        for c in found["collectives"]
        if c["bytes"] >= 1e6
    ]


def total(stages: Sequence[Mapping[str, Any]]) -> str:
    """One line for the whole run: days, dollars, and which of its stages do not fit."""
    days, dollars = (sum(s[key] for s in stages) for key in ("days", "dollars"))
    lacking = [s["stage"] for s in stages if not s["fits"]]
    fits = f"does not fit: {', '.join(lacking)}" if lacking else "every stage fits"
    return f"in all {days:.1f} days and {dollars:,.0f} dollars; {fits}"


def page(whole: Mapping[str, Any]) -> str:
    """The plan as one Markdown page. whole: as `osjax.plan` gives it."""
    how = "compiled" if whole["compiled"] else "by arithmetic"
    parts = [f"# Plan for {whole['devices']} {whole['target']['chip']['name']}, {how}", total(whole["stages"])]
    for stage in whole["stages"]:
        parts += [f"## {stage['stage']}", stage_table(stage)]
    return "\n\n".join(parts) + "\n"


def write(path: Path, whole: Mapping[str, Any]) -> None:
    """Write the plan as one HTML page. path: of the page. whole: as `page` takes it."""
    how = "compiled" if whole["compiled"] else "by arithmetic"
    body = html.heading(f"Plan for {whole['devices']} {whole['target']['chip']['name']}, {how}", 1)
    body += html.paragraph(total(whole["stages"]))
    for stage in whole["stages"]:
        body += html.heading(stage["stage"]) + html.table(("", ""), figures(stage))
        body += html.table(("collective", "mesh axes", "times", "GB a device and step"), _sent(stage))
        body += html.table(BUCKETS, _buckets(stage))
    html.write(path, "osjax plan", body)


def _size(row: Mapping[str, Any]) -> str:
    return f"{row['frames']} x {row['width']}x{row['height']}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown. head: names of the columns. rows: as many cells each; a bar in a cell is not escaped."""
    lines = [tuple(head), ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
