"""The dimension alphabet, the logical axis names and the batches that travel between floors.

Dimension alphabet, used as suffixes of array names (`q_BShd`):

    B batch        T frames         H W height, width   C channels
    N video tokens M text tokens    S = M + N           D model width
    h heads        d head dimension

Time convention of the whole project: t = 1 is noise, t = 0 is data.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

Array = Any  # numpy or jax array; the data floor must not import jax to name one
Tree = Any  # pytree of arrays, of their shapes or of their places on a mesh
NamedTree = Mapping[str, Any]  # one of nested dicts, such as a model's parameters
Row = dict[str, Any]  # a record by the names of its columns: of a table, of a data set, of what a loader makes of it
Json = dict[str, Any]  # what a JSON file holds, at its top


class ModelConfig(Protocol):
    """The frozen dataclass that configures a model, of whatever family."""

    __dataclass_fields__: ClassVar[dict[str, Any]]  # so that `dataclasses` takes it


class Axis:
    """Logical names of parameter and activation axes; `parallel/rules.py` maps each to mesh axes."""

    # Parameters.
    LAYERS = "layers"  # blocks stacked by scan
    EMBED = "embed"  # model width, the contracted side of a kernel
    MLP = "mlp"  # hidden width of a feed-forward layer
    QKV = "qkv"  # the three projections of one fused kernel
    HEADS = "heads"
    HEAD_DIM = "head_dim"
    MODULATION = "modulation"  # shift, scale and gate vectors
    PATCH = "patch"  # token channels: packed latent (and condition) values
    FEATURES = "features"  # timestep, text and pooled features that enter the model
    CONV_KERNEL = "conv_kernel"  # spatial and temporal taps
    CONV_IN = "conv_in"
    CONV_OUT = "conv_out"
    NORM = "norm"  # norm scales and biases
    VOCAB = "vocab"  # token ids of an embedding table
    RANK = "rank"  # of low-rank adapters

    # Activations.
    BATCH = "batch"
    GROUP_ROWS = "group_rows"  # a batch's, where the devices that share the weights' parts all see them
    TOKENS = "tokens"  # video or joint tokens, split over `sequence`
    ACT_EMBED = "act_embed"
    ACT_HEADS = "act_heads"


_TRANSFORMER = "LAYERS EMBED MLP QKV HEADS HEAD_DIM MODULATION PATCH FEATURES RANK"
_PARAMETERS = f"{_TRANSFORMER} CONV_KERNEL CONV_IN CONV_OUT NORM VOCAB"
PARAMETER_AXES = tuple(getattr(Axis, name) for name in _PARAMETERS.split())
ACTIVATION_AXES = (Axis.BATCH, Axis.GROUP_ROWS, Axis.TOKENS, Axis.ACT_EMBED, Axis.ACT_HEADS)


class LatentBatch(NamedTuple):
    """What the diffusion step takes: one bucket's worth of latents with their text and condition.

    latents_BTHWC: normalised autoencoder latents, float32.
    txt_BMC:       text hidden states.
    y_vec_BC:      pooled text vector.
    cond_BTHWC:    mask channel first, then the masked latent (C + 1 channels); None for models without `cond_in`.
    strength_B:    of guidance, for models that are told it; None for the others.
    """

    latents_BTHWC: Array
    txt_BMC: Array
    y_vec_BC: Array
    cond_BTHWC: Array | None = None
    strength_B: Array | None = None


class VideoBatch(NamedTuple):
    """What the autoencoder step takes. video_BTHWC: pixels in [-1, 1], float32."""

    video_BTHWC: Array
