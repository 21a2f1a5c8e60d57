"""`osjax.plan`: what a training run needs and costs on accelerators that are not here, from Python."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from osjax.parts import config as configs
from osjax.parts import run as runs
from osjax.planning import aot, targets
from osjax.planning.stage import plan as plan_stage
from osjax.planning.stage import target_mesh
from osjax.types import Json


def plan(
    config: str | Path,
    target: str,
    *,
    overrides: Mapping[str, Any] | None = None,
    stages: Sequence[str] = (),
    compiled: bool | None = None,
    mfu: float | None = None,
) -> Json:
    """A plan as plain values: `target`, `devices`, `compiled`, and `stages`, one mapping each.

    config: file of a training run, such as "configs/curriculum.py". target: such as "v5p-128" or "h200x64". overrides:
    config keys in dotted form with their values. stages: only these; empty: all of the video model. compiled: by the
    target's compiler, where it is installed; False: by arithmetic, in seconds; None: compiled where that can be. mfu:
    the utilisation to expect, 0 to 1; None: what the original reached. UserError for what cannot run.
    """
    aim = targets.parse(target)
    compiled = aot.available(aim) if compiled is None else compiled
    run = runs.of_config(configs.load(config, overrides or {}), target_mesh(aim, compiled), ignored=("report",))
    made = [plan_stage(recipe, aim, compiled, mfu) for recipe in run.diffusion(stages).values()]
    return {"target": asdict(aim), "devices": aim.devices, "compiled": compiled, "stages": made}
