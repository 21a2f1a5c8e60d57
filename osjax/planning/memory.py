"""Bytes of a train step on one device by arithmetic, where no compiler is at hand, and to search with.

State is exact. Of activations the block inputs that rematerialisation keeps are exact too; what one block needs while
it runs is WORKING tensors of a token's width, fitted to compiled programs (docs/planning.md has both side by side).
"""

from dataclasses import dataclass

from osjax.models.mmdit.config import MMDiTConfig

WORKING = 40.0  # bfloat16 tensors (tokens, width) alive in the backward pass of one block
# Of the same, kept on the device until a block's gradient: of a block that is run again, and of one that is not.
SAVED = {"none": 0.0, "full": 1.0, "save_attention": 2.0, "offload": 0.0, "offload_save_attention": 1.0}
WHOLE_DOUBLE, WHOLE_SINGLE = 22.0, 17.0
ATTENTION_ONCE = ("save_attention", "offload_save_attention")  # policies that never run attention's forward pass again
OFFLOADED = ("offload", "offload_save_attention")  # policies that keep block inputs in the host's memory
# Where adapters alone train: of the working tensors, and what of a whole block is kept, as most inputs are of no use.
WORKING_FROZEN, WHOLE_FROZEN = 21.0, 0.68


@dataclass(frozen=True)
class Estimate:
    """Bytes of a train step on one device. state: parameters, moments, average. gradients, saved, working: temporaries.

    saved: what blocks keep for their gradients. working: what one block needs while it runs. host: pinned memory.
    """

    state: int
    gradients: int
    saved: int
    working: int
    host: int

    @property
    def peak(self) -> int:
        return self.state + self.gradients + self.saved + self.working


def estimate(
    model_cfg: MMDiTConfig,
    parameters: int,
    state_bytes: int,
    ways: dict[str, int],
    rows: int,
    tokens: int,
    adapters: bool = False,
) -> Estimate:
    """Bytes of a train step on one device.

    model_cfg: of the video model. parameters: number of those that train. state_bytes: of one device, from the shapes
    and shardings. ways: sizes of the mesh axes. rows: of the whole batch. tokens: of one row, text included. adapters:
    they are adapters, whose own gradients are small and those of the model beneath nobody computes.
    """
    shards = ways["fsdp"] * ways["sequence"] * ways["tensor"]
    here = -(-rows // (ways["data"] * ways["fsdp"])) * -(-tokens // ways["sequence"])
    tensor = 2 * here * model_cfg.hidden_size
    double, single = recomputed(model_cfg)
    whole = WHOLE_DOUBLE * (model_cfg.depth - double) + WHOLE_SINGLE * (model_cfg.depth_single_blocks - single)
    alive, kept = (WORKING_FROZEN, WHOLE_FROZEN) if adapters else (WORKING, 1.0)
    saved = tensor * (SAVED[model_cfg.remat] * (double + single) + kept * whole)
    host = tensor * (double + single) if model_cfg.remat in OFFLOADED else 0
    width = model_cfg.hidden_size
    largest = 2 * (4 + 2 * model_cfg.mlp_ratio + 6) * width**2  # weights of a double block
    gathered = 2 * 2 * largest / ways["tensor"] if shards > 1 else 0  # this block's and the next one's, bfloat16
    # Its gradient before it is scattered; beside adapters a copy of it in the dtype of the products.
    reduced = (1 if adapters else 4) * largest / ways["tensor"]
    return Estimate(
        state_bytes,
        round(4 * parameters / shards),
        round(saved),
        round(alive * tensor / ways["tensor"] + gathered + reduced),
        round(host),
    )


def recomputed(model_cfg: MMDiTConfig) -> tuple[int, int]:
    """Numbers of double and of single blocks whose forward pass is run again. model_cfg: of the video model."""
    if model_cfg.remat == "none":
        return 0, 0
    double, single = model_cfg.depth, model_cfg.depth_single_blocks
    most = model_cfg.remat_blocks or (double, single)
    return min(double, most[0]), min(single, most[1])


def recomputed_blocks(model_cfg: MMDiTConfig) -> int:
    """Number of blocks whose forward pass is run again for their gradient. model_cfg: of the video model."""
    return sum(recomputed(model_cfg))
