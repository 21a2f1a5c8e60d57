"""The denoise loop as one compiled call per shape of latent, on one device or on a mesh.

Everything but the shape is an argument: seeds, guidance, the number of steps, their schedule and the solver need no new
program. The same program runs the whole loop or, for a progress bar, one step after the other; the numbers are the same
bits.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from osjax.errors import UserError
from osjax.flow import bend, guidance, sampler, shift
from osjax.models import velocity
from osjax.parallel import sharding
from osjax.sampling import cached, skips
from osjax.sampling.calibration import Curve
from osjax.sampling.inputs import Inputs, given
from osjax.sampling.settings import MEASURED, SHIFTED, SampleSettings

OnStep = Callable[[sampler.State], None]


class Denoised(NamedTuple):
    """What a run of the loop gives. x_BTHWC: latents. ran: calls that ran the model's blocks, of `calls` in all."""

    x_BTHWC: jax.Array
    ran: int
    calls: int


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def advance(
    module: nn.Module,
    params: velocity.Params,
    state: sampler.State,
    inputs: Inputs,
    calls: sampler.Calls,
    first: np.int32,
    last: np.int32,
) -> sampler.State:
    """The state after the model calls `first` up to, but without, `last`, which must begin and end with a step.

    module, params: the velocity model. state: of latents (B, T, H, W, C); its buffers are donated. inputs: all else
    that the model is told. calls: of `plan`. first, last: int32 scalars, so that one program serves every range.
    """
    size = state.x.shape[1:4]

    def call(i: jax.Array, state: sampler.State) -> sampler.State:
        t = jnp.asarray(calls.t_F)[i]
        t_B = jnp.full((len(state.x),), t)
        told = given(inputs, jnp.asarray(calls.branch_F)[i])
        return sampler.update(state, calls, i, velocity.of_packed(module, params, state.x, size, t_B, told))

    packed = jax.lax.fori_loop(first, last, call, jax.tree.map(module.pack, state))
    return jax.tree.map(lambda x: module.unpack(x, size), packed)


def plan(
    settings: SampleSettings,
    module: nn.Module,
    latent_shape: tuple[int, int, int, int],
    curve: Curve | None = None,
) -> tuple[sampler.Calls, np.ndarray]:
    """(calls, ends of steps) of `flow.sampler.plan` for these settings and this velocity model.

    latent_shape: (T, H, W, C), from which the timestep shift follows. curve: of settings that take one. UserError where
    guidance is for a part of the steps and acts in none, or the model is told its strength once for all.
    """
    T, H, W, _ = latent_shape
    if settings.schedule == MEASURED:
        assert curve is not None  # the pipeline has seen to it
        times = bend.schedule(settings.steps, np.array(curve.times), np.array(curve.bend))
    else:
        times = shift.schedule(settings.steps, module.inputs.tokens(1, H, W), T, settings.shift, settings.alpha)
    if module.inputs.guidance:
        if settings.in_part:
            told = "this model is told the strength of guidance, the same in all steps"
            raise UserError(f"{told}: leave out guidance_from and guidance_until")
        return sampler.plan(times, solver=settings.solver)  # distilled: told the strength, one call an evaluation
    mode = settings.condition
    weights = guidance.weights(
        settings.steps,
        T,
        settings.guidance,
        # Without a condition the last two predictions are the same, so guidance on it changes nothing.
        settings.guidance_img if mode.references and module.inputs.condition else 1.0,
        text_oscillation=settings.text_oscillation,
        image_oscillation=settings.image_oscillation,
        image_ramp=settings.image_ramp and mode.is_image,
    )
    if settings.in_part:
        above, below = settings.guidance_until, settings.guidance_from
        weights = guidance.within(weights, times[:-1], above, below)
        if not np.any((times[:-1] >= above) & (times[:-1] <= below)):
            raise UserError(f"no step of {settings.steps} begins between the times {below} and {above}: widen guidance")
    return sampler.plan(times, weights, settings.solver)


class Denoiser:
    """A velocity model and the mesh that it is split over; parameters are given to each call.

    rows: samples that one call makes, one for every group of devices that holds a whole model. Each is computed as if
    alone, so a sample's bits do not depend on its company.
    """

    def __init__(self, module: nn.Module, mesh: Mesh | None = None):
        self.module, self.mesh = module, mesh
        self.rows = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]

    def check(self, latent_shape: tuple[int, int, int, int], text_tokens: int) -> None:
        """UserError where the model does not take such latents, or their tokens do not divide over the mesh.

        latent_shape: (T, H, W, C) of one sample. text_tokens: of a prompt.
        """
        self.module.check_latent(*latent_shape)
        video_tokens = self.module.inputs.tokens(*latent_shape[:3])
        ways = 1 if self.mesh is None else self.mesh.shape["sequence"]
        for name, count in (("video", video_tokens), ("text", text_tokens)):
            if count % ways:
                raise UserError(
                    f"{count} {name} tokens do not divide over sequence={ways}: use another mesh.sequence, "
                    "such as a power of two that divides them, or another size"
                )

    def __call__(
        self,
        params: velocity.Params,
        noise_BTHWC: jax.Array,
        inputs: Inputs,
        settings: SampleSettings,
        on_step: OnStep | None = None,
        curve: Curve | None = None,
    ) -> Denoised:
        """The denoised latents (rows, T, H, W, C), float32, and what they took.

        params: of the module. noise_BTHWC: to start from, a row for each of `rows`. settings: steps, shift, guidance.
        on_step: called after every step with the state of latents, which costs a wait each time; the next step takes
        its buffers, and what it raises ends the loop. curve: measured, for settings that take one. UserError: see
        `check`.
        """
        calls, ends = plan(settings, self.module, noise_BTHWC.shape[1:], curve)
        self.check(noise_BTHWC.shape[1:], inputs.txt_2BMC.shape[2])
        skipping = self._skipping(settings, calls, ends, curve)
        if self.module.inputs.guidance:
            inputs = inputs._replace(strength_B=settings.told(len(noise_BTHWC), self.module.inputs.guidance_img))
        if self.mesh is None:
            # Where the parameters are, as it comes back from each step: else the second one would be compiled anew.
            where = getattr(jax.tree.leaves(params)[0], "sharding", None)
            state = jax.device_put(sampler.start(noise_BTHWC), where)
            return self._run(Loop(params, inputs, calls, skipping), state, ends, on_step)
        # Each group of devices makes its own rows. Text, condition and tables are small: every device has them whole.
        rows = sharding.batch_sharding(self.mesh)
        everywhere = sharding.replicated(self.mesh)
        state = jax.device_put(sampler.start(noise_BTHWC), rows)
        inputs = jax.device_put(inputs, everywhere)
        with sharding.under(self.mesh):
            return self._run(Loop(params, inputs, jax.device_put(calls, everywhere), skipping), state, ends, on_step)

    def _skipping(
        self, settings: SampleSettings, calls: sampler.Calls, ends: np.ndarray, curve: Curve | None
    ) -> tuple[cached.Look, cached.Skips] | None:
        """What the settings' cache makes of the program, and its table; None where nothing is skipped."""
        if settings.reuse == skips.NONE:
            return None
        if not hasattr(self.module, "velocity_reusing"):
            raise UserError(f"this family of models runs all of itself in every call: leave reuse {settings.reuse} out")
        look = skips.look_of(settings.reuse, settings.reuse_lines)
        if self.rows > 1 and look.signal != "none":
            raise UserError(
                f"the cache {settings.reuse} decides in the run, and {self.rows} samples at once would have to agree: "
                "use magcache, or a mesh without data and fsdp"
            )
        return look, skips.of_run(settings.reuse, settings.bounds, calls, ends, curve)

    def lower(
        self,
        params: velocity.Params,
        latent_shape: tuple[int, int, int, int],
        text_tokens: int,
        settings: SampleSettings,
    ) -> jax.stages.Lowered:
        """The program that makes a latent with these settings. Allocates nothing.

        params: shapes. latent_shape: (T, H, W, C) of one sample. text_tokens: of a prompt. settings: steps, shift,
        guidance. UserError: see `check`.
        """
        # Times shape no program, so those of the formula do for measured ones.
        takes, calls = self.module.inputs, plan(replace(settings, schedule=SHIFTED), self.module, latent_shape)[0]
        everywhere = rows = None
        if self.mesh is not None:
            everywhere, rows = sharding.replicated(self.mesh), sharding.batch_sharding(self.mesh)

        def shape(sizes, sharding=everywhere, dtype=jnp.float32):
            return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

        self.check(latent_shape, text_tokens)
        state = sampler.State(*[shape((self.rows, *latent_shape), rows)] * 4)
        inputs = Inputs(
            shape((2, self.rows, text_tokens, takes.text_channels)),
            shape((2, self.rows, takes.pooled_channels)),
            shape((self.rows, *latent_shape[:3], latent_shape[3] + 1)) if takes.condition else None,
            shape((self.rows, 2) if takes.guidance_img else (self.rows,)) if takes.guidance else None,
        )
        tables = jax.tree.map(lambda x: shape(x.shape, dtype=x.dtype), calls)
        bounds = (shape((), dtype=jnp.int32),) * 2
        context = nullcontext() if self.mesh is None else sharding.under(self.mesh)
        with context:
            if settings.reuse == skips.NONE:
                return advance.lower(self.module, params, state, inputs, tables, *bounds)
            look = skips.look_of(settings.reuse, settings.reuse_lines)
            memory = jax.eval_shape(partial(cached.start, self.module, look), params, state.x, inputs)
            skip = jax.tree.map(lambda x: shape(x.shape, dtype=x.dtype), skips.nothing(calls))
            both = (state, memory), inputs, (tables, skip)
            return cached.advance.lower(self.module, look, params, *both, *bounds)

    def _run(self, loop: "Loop", state: sampler.State, ends: np.ndarray, on_step: OnStep | None) -> Denoised:
        # Without a listener one dispatch runs the whole loop on the device. With one, a step may be several model
        # calls, one for each branch of guidance, so `ends` says after which call every step is complete.
        state, memory = loop.begin(self.module, state)
        begins = [0] if on_step is None else [0, *ends[:-1]]
        for first, last in zip(begins, ends[-len(begins) :], strict=True):
            state, memory = loop.advance(self.module, (state, memory), np.int32(first), np.int32(last))
            if on_step is not None:
                on_step(jax.block_until_ready(state))
        calls = int(ends[-1])
        return Denoised(state.x, calls if memory is None else int(np.sum(memory.ran_3)), calls)


@dataclass(frozen=True)
class Loop:
    """A run's loop but for its state. skipping: of a cache; None for the exact one, whose program is another."""

    params: velocity.Params
    inputs: Inputs
    calls: sampler.Calls
    skipping: tuple[cached.Look, cached.Skips] | None

    def begin(self, module: nn.Module, state: sampler.State) -> tuple[sampler.State, cached.Memory | None]:
        """The state with a memory beside it. module: the video model."""
        if self.skipping is None:
            return state, None
        return state, cached.start(module, self.skipping[0], self.params, state.x, self.inputs)

    def advance(
        self,
        module: nn.Module,
        state: tuple[sampler.State, cached.Memory | None],
        first: np.int32,
        last: np.int32,
    ) -> tuple[sampler.State, cached.Memory | None]:
        """The state and the memory behind the calls `first` up to `last`. module: the video model. state: of both."""
        if self.skipping is None:
            return advance(module, self.params, state[0], self.inputs, self.calls, first, last), None
        look, table = self.skipping
        return cached.advance(module, look, self.params, state, self.inputs, (self.calls, table), first, last)
