"""Distillation of a video model: a student learns to do in one call what its teacher does in several.

Guidance: the student is told the scales of guidance on text and on the condition, and learns the velocity that the
teacher's three predictions sum up to. Source: Meng et al. 2023.
Few steps: the path from noise to data is cut into as many parts as the student shall take steps. Anywhere in a part it
learns the straight way to the part's end: its own from one small step of the teacher's further on, which the teacher
takes; at the last one the teacher's is all that is left. Source: the consistency of Song et al. 2023, in parts as Wang
et al. 2024 have it.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from osjax.flow import path, shift
from osjax.models import velocity
from osjax.models.lora import Adapted
from osjax.training import update
from osjax.training.diffusion import Prepare, by_time
from osjax.training.optimizer import OptimizerConfig
from osjax.training.state import Step
from osjax.types import LatentBatch, Tree


class Taught(struct.PyTreeNode):
    """A student's parameters with its teacher's, which stay as they are; takes the place of the student's in a loss."""

    teacher: Tree
    student: Tree = None

    def given(self, params: Tree) -> "Taught":
        """This teacher with these parameters of the student."""
        return self.replace(student=params)

    def best(self) -> Tree:
        """What to evaluate and to sample with: the student."""
        return self.student


@dataclass(frozen=True)
class Scales:
    """What the student of guidance is told. text, image: (lowest, highest), drawn evenly. image: of the condition; None
    for students that are told one scale, which stands for both.
    """

    text: tuple[float, float]
    image: tuple[float, float] | None = None

    def draw(self, key: jax.Array, B: int) -> jax.Array:
        """Scales of B clips: (B, 2) on text and on the condition, float32."""
        lows, highs = (jnp.array(ends)[None] for ends in zip(self.text, self.image or self.text, strict=True))
        share_B2 = jax.random.uniform(key, (B, 2 if self.image else 1))
        share_B2 = jnp.broadcast_to(share_B2, (B, 2))
        return lows + share_B2 * (highs - lows)


@dataclass(frozen=True)
class Parts:
    """How the path is cut. steps: of the student. inner: small steps of the teacher in each of them. alpha: of the
    timestep shift when sampling; None: what size and duration imply.
    """

    steps: int
    inner: int
    alpha: float | None = None

    def times(self, tokens_per_frame: int, num_frames: int) -> np.ndarray:
        """Times of the small steps, from 1 (noise) down to 0: (steps * inner + 1,); the sampler's are among them.

        tokens_per_frame, num_frames: of the latents, as `shift.schedule` takes them.
        """
        return shift.schedule(self.steps * self.inner, tokens_per_frame, num_frames, alpha=self.alpha)


@dataclass(frozen=True)
class Lesson:
    """What a student learns of which teacher.

    teacher: the teacher's module. what: Scales for guidance, Parts for few steps. null: text states and pooled vector
    of no text. conditioned: whether some clips are given frames; else the teacher's prediction without a condition is
    the one with it. scales: what students of few steps, and their teachers, are told where they are told scales.
    """

    teacher: nn.Module
    what: Scales | Parts
    null: tuple[Any, Any]
    conditioned: bool
    scales: Scales | None = None


def guided(lesson: Lesson, params: Tree, batch: LatentBatch, t_B: jax.Array, scales_B2: jax.Array) -> jax.Array:
    """The teacher's guided velocity of packed latents, as `flow/guidance.py` sums it.

    lesson: whose teacher it is. params: the teacher's. batch: noisy latents with text and condition. t_B: times.
    scales_B2: on text and on the condition.
    """
    states, pooled = (jnp.asarray(x) for x in lesson.null)
    txt = jnp.broadcast_to(states, batch.txt_BMC.shape).astype(batch.txt_BMC.dtype)
    vec = jnp.broadcast_to(pooled, batch.y_vec_BC.shape).astype(batch.y_vec_BC.dtype)
    given = batch._replace(txt_BMC=txt, y_vec_BC=vec, strength_B=None)
    calls = [batch._replace(strength_B=None), given]
    if lesson.conditioned:
        calls.append(given._replace(cond_BTHWC=jnp.zeros_like(batch.cond_BTHWC)))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *calls)
    made = jax.lax.map(lambda call: velocity.of_batch(lesson.teacher, params, call, t_B), stacked)
    full, with_condition, free = (made[i].astype(jnp.float32) for i in (0, 1, len(calls) - 1))
    text, image = (scales_B2[:, i].reshape(-1, *(1,) * (full.ndim - 1)) for i in (0, 1))
    return free + image * (with_condition - free) + text * (full - with_condition)


def told(module: nn.Module, scales_B2: jax.Array) -> jax.Array | None:
    """The scales as a model of this module is told them: both, that on the text, or None."""
    inputs = module.inputs
    if not inputs.guidance:
        return None
    return scales_B2 if inputs.guidance_img else scales_B2[:, 0]


def make_loss(
    module: nn.Module, lesson: Lesson, prepare: Prepare, skip_given: bool = False, alpha: float | None = None
) -> update.LossFn:
    """The loss `(Taught or Adapted parameters, batch, key) -> (float32 scalar, its sums by time)`, for `update.apply`.

    module: the student's. lesson: what it learns. prepare, skip_given, alpha: as `diffusion.make_loss` takes them; the
    times of few steps are those of the parts. Adapters are a student whose teacher is the model beneath.
    """
    teach = _of_guidance if isinstance(lesson.what, Scales) else _of_steps

    def loss_fn(params: Tree, batch: Tree, key: jax.Array) -> tuple[jax.Array, update.Sums]:
        student, teacher = _apart(params)
        key_prepare, key_t, key_noise, key_scale = jax.random.split(key, 4)
        batch = prepare(batch, key_prepare)
        noise = path.draw_noise(key_noise, batch.latents_BTHWC)
        scales = lesson.what if isinstance(lesson.what, Scales) else lesson.scales
        scales_B2 = (scales or Scales((1.0, 1.0))).draw(key_scale, len(noise))
        batch = batch._replace(strength_B=told(module, scales_B2))
        x_BNC, target_BNC, t_B = teach(module, lesson, (student, teacher), batch, noise, (key_t, scales_B2, alpha))
        got_BNC = _velocity(module, student, x_BNC, batch, t_B)
        target_BNC = jax.lax.stop_gradient(target_BNC)
        if skip_given:
            mask_BT = batch.cond_BTHWC[:, :, 0, 0, 0]
            losses_B = path.frame_skipping_sample_losses(got_BNC, target_BNC, mask_BT)
        else:
            losses_B = path.sample_losses(got_BNC, target_BNC)
        return losses_B.mean(), by_time(losses_B, t_B)

    return loss_fn


def _apart(params: Tree) -> tuple[Tree, Tree]:
    """(student, teacher)."""
    return (params, params.params) if isinstance(params, Adapted) else (params.student, params.teacher)


def _velocity(module: nn.Module, params: Tree, x_BNC: jax.Array, batch: LatentBatch, t_B: jax.Array) -> jax.Array:
    size = batch.latents_BTHWC.shape[1:4]
    return velocity.of_packed(module, params, x_BNC, size, t_B, velocity.Given(*batch[1:]))


def _of_guidance(module, lesson, params, batch, noise, drawn):
    key_t, scales_B2, alpha = drawn
    B, T, H, W, _ = noise.shape
    t_B = path.draw_timesteps(key_t, B, alpha or shift.training_alpha(T, H, W))
    x_t = path.interpolate(batch.latents_BTHWC, noise, t_B)
    target_BNC = guided(lesson, params[1], batch._replace(latents_BTHWC=x_t), t_B, scales_B2)
    return module.pack(x_t), target_BNC, t_B


def _of_steps(module, lesson, params, batch, noise, drawn):
    key_t, scales_B2, _ = drawn
    B, T, H, W, _ = noise.shape
    inner, (student, teacher) = lesson.what.inner, params
    times = lesson.what.times(module.inputs.tokens(1, H, W), T)
    n_B = jax.random.randint(key_t, (B,), 0, len(times) - 1)
    t_B, next_B, end_B = (jnp.asarray(times)[i] for i in (n_B, n_B + 1, (n_B // inner + 1) * inner))
    x_t = path.interpolate(batch.latents_BTHWC, noise, t_B)
    x_BNC = module.pack(x_t)

    def along(step_B):
        return step_B.reshape(-1, *(1,) * (x_BNC.ndim - 1))

    if lesson.teacher.inputs.guidance:
        way = _velocity(lesson.teacher, teacher, x_BNC, batch._replace(strength_B=told(lesson.teacher, scales_B2)), t_B)
    else:
        way = guided(lesson, teacher, batch._replace(latents_BTHWC=x_t), t_B, scales_B2)
    further_BNC = x_BNC + along(next_B - t_B) * way.astype(jnp.float32)
    rest = _velocity(module, jax.lax.stop_gradient(student), further_BNC, batch, next_B).astype(jnp.float32)
    there_BNC = further_BNC + along(end_B - next_B) * rest
    return x_BNC, (there_BNC - x_BNC) / along(end_B - t_B), t_B


def make_step(tx: optax.GradientTransformation, cfg: OptimizerConfig, loss_fn: update.LossFn) -> Step:
    """The pure step `(state, batch, run_key) -> (state, metrics)`, as `diffusion.make_step` has it.

    tx: the update rule that cfg describes. loss_fn: of `make_loss`.
    """

    def step(state, batch, run_key):
        return update.apply(state, batch, jax.random.fold_in(run_key, state.step), loss_fn, tx, cfg)

    return step
