"""An XProf trace of a few steps of a run."""

from pathlib import Path

import jax

from osjax.training.loop_config import LoopConfig


class Profile:
    """An XProf trace of `profile_steps` steps, after those that compile; a context manager around the steps.

    first: the run's first step. The trace goes to `workdir/profile`.
    """

    def __init__(self, cfg: LoopConfig, first: int, workdir: Path):
        self.folder, self.on = workdir / "profile", False
        self.start = first + 3 if cfg.profile_steps else -1
        self.end = self.start + cfg.profile_steps

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        if self.on:
            jax.profiler.stop_trace()

    def before(self, step: int) -> None:
        """Begin or end the trace if it is time to, before this step."""
        if step == self.start:
            jax.profiler.start_trace(self.folder)
            self.on = True
        elif self.on and step >= self.end:
            jax.profiler.stop_trace()
            self.on = False
