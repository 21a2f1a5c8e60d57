"""How long a run goes on, how often it saves and evaluates, and what it puts up with."""

from dataclasses import dataclass

from osjax.training.health import HealthConfig


@dataclass(frozen=True)
class LoopConfig:
    """The settings of the training loop.

    stage: name in logs. total_steps: updates in all. save_every: steps between checkpoints (0: only the last).
    local_every: steps between those on hosts' own disks (0: none).

    eval_every: steps between evaluations. hang_factor: median steps without a step after which the process ends for a
    restart (0: never), but not before hang_least_s seconds. max_failed_saves: saves in a row that may fail, as on a
    full disk, before the run stops. profile_steps: steps of an XProf trace, from the fourth on.
    """

    stage: str
    total_steps: int
    save_every: int = 0
    local_every: int = 0
    eval_every: int = 0
    health: HealthConfig = HealthConfig()
    hang_factor: float = 0.0
    hang_least_s: float = 600.0
    max_failed_saves: int = 3
    profile_steps: int = 0
