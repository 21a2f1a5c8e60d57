"""The reconstruction phase of an autoencoder: L1 + LPIPS as the report has it (section 4.4), or a squared error.

Latent distillation is this phase with an alignment beside the losses (`training/distillation.py`). The adversarial
phase is `training/gan.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from osjax.errors import UserError
from osjax.training import ae_losses, distillation, update
from osjax.training import state as states
from osjax.training.distillation import Alignment, Distillation
from osjax.training.freeze import Freeze
from osjax.training.optimizer import OptimizerConfig
from osjax.training.state import TrainState
from osjax.types import Tree, VideoBatch


class AutoencoderState(TrainState):
    """A train state with what the losses of an autoencoder need besides its own parameters.

    perceptual: the parameters of LPIPS, which stay as they are, or None. alignment: of latent distillation, or None.
    They are part of the state, so that they are sharded like all else and a run goes on without the user's files.
    """

    perceptual: Tree = None
    alignment: Alignment | None = None


def create(
    init_params: Callable[[], Tree],
    tx: optax.GradientTransformation,
    with_ema: bool,
    freeze: Freeze = states.EVERYTHING,
    perceptual: Tree = None,
    projection: Tree = None,
    teacher: Tree = None,
) -> AutoencoderState:
    """A fresh state. Trace it; boxes pass through.

    init_params: makes the autoencoder's parameters. tx: the update rule whose moments begin here. with_ema: whether an
    average is kept. freeze: the parameters that stay. perceptual: the parameters of LPIPS, or None.
    projection, teacher: parameters of both, where latents are distilled; None where they are not.
    """
    if projection is None:
        return AutoencoderState(**vars(states.create(init_params, tx, with_ema, freeze)), perceptual=perceptual)
    joint = states.create(lambda: {**init_params(), distillation.GROUP: projection}, tx, with_ema, freeze)
    blank = AutoencoderState(**vars(joint), perceptual=perceptual, alignment=Alignment(None, None, teacher))
    return _apart(joint, blank)


@dataclass(frozen=True)
class AutoencoderLosses:
    """Weights of the losses of the reconstruction phase, each beside an L1 of weight 1, and what they are taken on.

    perceptual_weight: of LPIPS; the report's is 0.5. mse_weight: of the squared error of pixels in [-1, 1].
    edge_weight: of the error of the differences between neighbouring pixels (`ae_losses.edges`).
    image_weight: of the same losses on one random frame of each clip, taken as an image, so that given first frames
    encode well too. alignment_weight: of latent distillation. Weights have no unit; 0 leaves a loss out.
    crop: side in pixels of a square cut at random from the clips, the same for the whole batch; 0 takes them whole. The
    model is convolutional, so small cuts teach it as much per pixel and cost less.
    UserError for a negative one.
    """

    perceptual_weight: float = 0.0
    mse_weight: float = 0.0
    edge_weight: float = 0.0
    image_weight: float = 0.0
    alignment_weight: float = 0.0
    crop: int = 0

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 0:
                raise UserError(f"losses.{name} is {value}: give 0 or more")


def make_step(
    module: nn.Module,
    tx: optax.GradientTransformation,
    cfg: OptimizerConfig,
    losses: AutoencoderLosses = AutoencoderLosses(),
    lpips: nn.Module | None = None,
    teaching: Distillation | None = None,
) -> Callable[[AutoencoderState, VideoBatch, jax.Array], tuple[AutoencoderState, dict[str, jax.Array]]]:
    """The pure step `(state, batch, run_key) -> (state, metrics)` for a module whose call reconstructs its input.

    tx: the update rule that cfg describes. lpips: the module of the perceptual distance, whose parameters the state
    holds; teaching: the teacher of latent distillation. Each may be None where its weight in `losses` is 0.
    metrics: those of `update.apply`, and l1, edges, lpips and alignment where they take part.
    """

    def distance(perceptual, got, video):
        terms = {"l1": ae_losses.l1(got, video)}
        total = terms["l1"] + losses.mse_weight * ae_losses.mse(got, video)
        if losses.edge_weight:
            terms["edges"] = ae_losses.edges(got, video)
            total += losses.edge_weight * terms["edges"]
        if losses.perceptual_weight:
            terms["lpips"] = lpips.apply({"params": perceptual}, video, got).mean()
            total += losses.perceptual_weight * terms["lpips"]
        return total, terms

    def loss_fn(state, params, batch, key):
        key_crop, key_frame = jax.random.split(key)
        video = random_crop(batch.video_BTHWC, losses.crop, key_crop)
        model = {name: group for name, group in params.items() if name != distillation.GROUP}
        if losses.alignment_weight:
            got, latents = teaching.reconstruct(module, model, video)
        else:
            got = module.apply({"params": model}, video)
        total, terms = distance(state.perceptual, got, video)
        if losses.image_weight:
            frame = jax.random.randint(key_frame, (), 0, video.shape[1])
            image = jax.lax.dynamic_slice_in_dim(video, frame, 1, axis=1)
            total += losses.image_weight * distance(state.perceptual, module.apply({"params": model}, image), image)[0]
        if losses.alignment_weight:
            key_frames = jax.random.fold_in(key, DRAWN)
            projection, teacher = params[distillation.GROUP], state.alignment.teacher
            terms["alignment"] = teaching.loss(projection, teacher, latents, video, key_frames)
            total += losses.alignment_weight * terms["alignment"]
        return total, {name: jnp.stack([term, jnp.ones(())]) for name, term in terms.items()}

    def step(state, batch, run_key):
        key = jax.random.fold_in(run_key, state.step)
        after, metrics = update.apply(_joint(state), batch, key, partial(loss_fn, state), tx, cfg)
        return _apart(after, state), metrics

    return step


DRAWN = 2  # which of a step's keys draws the frames that are aligned; cut and image have the first two


def _joint(state: AutoencoderState) -> AutoencoderState:
    """The state with the projection among the parameters, for the optimiser that both share."""
    if state.alignment is None:
        return state
    params = {**state.params, distillation.GROUP: state.alignment.projection}
    ema = state.ema and {**state.ema, distillation.GROUP: state.alignment.average}
    return state.replace(params=params, ema=ema)


def _apart(joint: TrainState, before: AutoencoderState) -> AutoencoderState:
    """The next state: what an update of `_joint(before)` gave, the projection again by itself."""
    fields = vars(joint) | {name: getattr(before, name) for name in ("perceptual", "alignment")}
    if before.alignment is None:
        return AutoencoderState(**fields)

    def taken_out(tree):
        return tree and ({k: v for k, v in tree.items() if k != distillation.GROUP}, tree[distillation.GROUP])

    fields["params"], projection = taken_out(joint.params)
    fields["ema"], average = taken_out(joint.ema) or (None, None)
    return AutoencoderState(**fields | {"alignment": before.alignment.replace(projection=projection, average=average)})


def random_crop(video_BTHWC: jax.Array, side: int, key: jax.Array) -> jax.Array:
    """A square of `side` pixels of every clip, at one place for all that `key` draws; 0 takes the clips whole.

    UserError for a square that is larger than the clips.
    """
    if not side:
        return video_BTHWC
    B, T, H, W, C = video_BTHWC.shape
    if side > min(H, W):
        raise UserError(f"a crop of {side} does not fit clips of {H}x{W}: use at most {min(H, W)}")
    top, left = (jax.random.randint(k, (), 0, n - side + 1) for k, n in zip(jax.random.split(key), (H, W), strict=True))
    return jax.lax.dynamic_slice(video_BTHWC, (0, 0, top, left, 0), (B, T, side, side, C))
