"""AdamW or Muon with clipping, learning-rate schedules and the moving average of the parameters."""

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from osjax.errors import UserError
from osjax.training import muon
from osjax.training.freeze import Freeze

Same = TypeVar("Same")
NAMES = ("adamw", "muon")
SCHEDULES = ("constant", "cosine", "step")
MOMENT_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class OptimizerConfig:
    """Defaults are the report's (section 4.2): AdamW, eps 1e-15, no weight decay, gradients clipped to norm 1.

    name: adamw, or muon, which takes the matrices between layers (`training/muon.py`) and leaves the rest to AdamW.
    lr: peak learning rate. schedule: constant, cosine to `final_lr_ratio * lr` over `decay_steps` (0: all of a stage),
    or step, which takes the learning rate of each of `milestones` (update, learning rate) from that update on; each
    after a linear warm-up from `initial_lr`. accumulate: micro-batches per update. ema_decay: per update; 0 keeps no
    average.
    The warm-up and the average count updates. The original counts micro-batches there: what it has after n of them is
    here after n / accumulate, and its decay d an update is d ** accumulate (scripts/diffusion/train.py).
    moment_dtype: of Adam's first moment; bfloat16 saves two bytes a parameter, the second moment needs its digits.
    freeze: parameters that stay as they are.
    """

    name: str = "adamw"
    lr: float = 5e-5
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-15
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    schedule: str = "constant"
    warmup_steps: int = 0
    initial_lr: float = 1e-6
    decay_steps: int = 0
    final_lr_ratio: float = 0.0
    milestones: tuple[tuple[int, float], ...] = ()
    accumulate: int = 1
    ema_decay: float = 0.0
    moment_dtype: str = "float32"
    freeze: Freeze = Freeze()

    def __post_init__(self):
        if self.name not in NAMES:
            raise UserError(f"unknown name {self.name!r} of an optimizer: use one of {', '.join(NAMES)}")
        if self.moment_dtype not in MOMENT_DTYPES:
            raise UserError(f"unknown moment_dtype {self.moment_dtype!r}: use one of {', '.join(MOMENT_DTYPES)}")
        updates = [update for update, _ in self.milestones]
        if (self.schedule == "step") != bool(updates) or updates != sorted(set(updates)):
            raise UserError(
                f"milestones {self.milestones} must rise and belong to schedule step: give rows (update, learning rate)"
            )
        if self.schedule not in SCHEDULES:
            raise UserError(f"unknown schedule {self.schedule!r}: use one of {', '.join(SCHEDULES)}")
        if self.schedule == "cosine" and 0 < self.decay_steps <= self.warmup_steps:
            raise UserError(f"cosine needs decay_steps > warmup_steps, got {self.decay_steps} and {self.warmup_steps}")
        for name in ("lr", "weight_decay", "clip_norm", "warmup_steps", "initial_lr", "decay_steps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}: give 0 or more")
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1 and self.eps > 0 and 0 <= self.final_lr_ratio <= 1):
            raise UserError(
                f"b1 {self.b1} and b2 {self.b2} must be in [0, 1), eps {self.eps} above 0, final_lr_ratio "
                f"{self.final_lr_ratio} in [0, 1]"
            )
        if not 0 <= self.ema_decay < 1 or self.accumulate < 1:
            raise UserError(f"ema_decay {self.ema_decay} must be in [0, 1) and accumulate {self.accumulate} at least 1")


def learning_rate(cfg: OptimizerConfig) -> optax.Schedule:
    """The schedule of `cfg`: the learning rate of an update, counted from 0.

    Source of the warm-up: Open-Sora opensora/utils/optimizer.py (LinearWarmupLR).
    """
    after = _after_warmup(cfg)
    if not cfg.warmup_steps:
        return after

    def rate(update: Any) -> jax.Array:
        # Update n takes (n + 1) / (warmup_steps + 1) of the way, so the first already moves. optax's own ramp counts
        # down from the peak, which costs digits where the start is small.
        warm = cfg.initial_lr + (cfg.lr - cfg.initial_lr) * (update + 1) / (cfg.warmup_steps + 1)
        return jnp.where(update < cfg.warmup_steps, warm, after(update - cfg.warmup_steps))

    return rate


def _after_warmup(cfg: OptimizerConfig) -> optax.Schedule:
    """Learning rate of an update, counted from the end of the warm-up."""
    if cfg.schedule == "cosine":
        if not cfg.decay_steps:  # a stage has put its steps there
            raise UserError("cosine needs decay_steps: give a number of updates", status=2)
        return optax.cosine_decay_schedule(cfg.lr, cfg.decay_steps - cfg.warmup_steps, cfg.final_lr_ratio)
    constant = optax.constant_schedule
    if cfg.schedule == "step":
        rates = [cfg.lr, *(lr for _, lr in cfg.milestones)]
        boundaries = [update - cfg.warmup_steps for update, _ in cfg.milestones]
        return optax.join_schedules([constant(lr) for lr in rates], boundaries)
    return constant(cfg.lr)


def make(cfg: OptimizerConfig) -> optax.GradientTransformation:
    """The update rule that `cfg` describes. Clipping divides by norm + 1e-6, as torch's clip_grad_norm_ does."""
    adam = learning_rate(cfg), cfg.b1, cfg.b2, cfg.eps
    if cfg.name == "muon":
        rule = muon.make(*adam, cfg.weight_decay, cfg.moment_dtype)
    else:
        rule = optax.adamw(*adam, weight_decay=cfg.weight_decay, mu_dtype=cfg.moment_dtype)
    return optax.chain(
        optax.stateless(lambda updates, _: _clip(updates, cfg.clip_norm)) if cfg.clip_norm else optax.identity(), rule
    )


def _clip(grads: Same, clip_norm: float) -> Same:
    scale = jnp.minimum(1.0, clip_norm / (optax.global_norm(grads) + 1e-6))
    return jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)


def update_ema(ema: Same, params: Same, decay: float) -> Same:
    """ema * decay + params * (1 - decay), in float32."""
    return jax.tree.map(lambda e, p: e * decay + p.astype(jnp.float32) * (1 - decay), ema, params)
