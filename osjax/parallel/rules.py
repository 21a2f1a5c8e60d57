"""One table from logical axis names to mesh axes, and another for autoencoders. A name without a rule is an error.

Weights shard over fsdp and sequence together, so that sequence parallelism also divides the memory of the weights.
"""

from collections.abc import Mapping

from jax.sharding import PartitionSpec

from osjax.types import Axis

MeshAxes = str | tuple[str, ...] | None
WEIGHTS = ("fsdp", "sequence")

TRANSFORMER: Mapping[str, MeshAxes] = {
    Axis.LAYERS: None,  # scanned: every device runs every block
    Axis.EMBED: WEIGHTS,
    Axis.MLP: "tensor",
    Axis.QKV: None,
    Axis.HEADS: "tensor",
    Axis.HEAD_DIM: None,
    Axis.MODULATION: "tensor",
    Axis.PATCH: None,
    Axis.FEATURES: None,
    Axis.CONV_KERNEL: None,
    Axis.CONV_IN: None,
    Axis.CONV_OUT: WEIGHTS,
    Axis.NORM: None,
    Axis.VOCAB: None,  # EMBED shards the table
    Axis.RANK: None,
    Axis.BATCH: ("data", "fsdp"),
    Axis.GROUP_ROWS: "data",
    Axis.TOKENS: "sequence",
    Axis.ACT_EMBED: None,
    Axis.ACT_HEADS: "tensor",
}

# Autoencoders are small: their weights shard over fsdp by output channel, and the tokens are frames and pixels.
AUTOENCODER: Mapping[str, MeshAxes] = {**TRANSFORMER, Axis.CONV_OUT: "fsdp"}


def spec(names: tuple[str | None, ...], rules: Mapping[str, MeshAxes] = TRANSFORMER) -> PartitionSpec:
    """Mesh axes of an array whose dimensions carry these logical names. KeyError for a name without a rule."""
    missing = [name for name in names if name is not None and name not in rules]
    if missing:
        raise KeyError(f"logical axis {missing[0]!r} has no rule in parallel/rules.py")
    return PartitionSpec(*(None if name is None else rules[name] for name in names))
