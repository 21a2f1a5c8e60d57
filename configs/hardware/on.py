"""The curriculum on given accelerators: meshes and rematerialisation by memory; `osjax plan` says whether it fits."""

from ml_collections import ConfigDict
from osjax.configs import curriculum

SHORT = ("stage1_t2v_256", "stage2_i2v_256")  # 256px: a device holds whole clips
LONG = ("stage3_i2v_768",)  # 768px: sequences are split
DEEP = ("deep_compression_32", "deep_compression_128")


def devices(fsdp: int, sequence: int, remat_blocks: tuple[int, int] | None, remat: str = "full") -> ConfigDict:
    """The whole curriculum.

    fsdp: devices that share the weights of the stages whose sequences are not split. sequence: devices that share a
    sequence at 768px; weights are shared by as many in all. remat_blocks: of the 256px stages, double and single
    blocks that are run again; None: all. remat: of the stages whose sequences are not split; `offload` keeps the inputs
    of blocks in the host's memory, for devices with little of their own.
    """
    cfg = curriculum.get_config()
    for name in (*SHORT, *DEEP):
        cfg.stages[name].mesh.fsdp = fsdp
        cfg.stages[name].model.remat = remat
    for name in SHORT:
        cfg.stages[name].model.remat_blocks = remat_blocks
    for name in LONG:
        cfg.stages[name].mesh.update(fsdp=max(1, fsdp // sequence), sequence=sequence)
    return cfg
