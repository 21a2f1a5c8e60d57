"""The curriculum on given accelerators: meshes and rematerialisation by memory; `osjax plan` says whether it fits."""

from ml_collections import ConfigDict

from osjax.configs import curriculum

SHORT = ("stage1_t2v_256", "stage2_i2v_256")  # 256px: a device holds whole clips
LONG = ("stage3_i2v_768",)  # 768px: sequences are split
DEEP = ("deep_compression_32", "deep_compression_128")
DOUBLE, SINGLE = 19, 38  # blocks of the model


def devices(fsdp: int, sequence: int, remat: str, whole: tuple[int, int, int] = (0, 0, 0)) -> ConfigDict:
    """The whole curriculum.

    fsdp: devices that share the weights of the stages whose sequences are not split. sequence: devices that share a
    sequence at 768px; weights are shared by as many in all. remat: of blocks, see osjax/ops/stack.py: `save_attention`
    keeps their inputs and what attention gave, `offload` the inputs alone, in the host's memory. whole: single blocks
    that keep everything, of the 256px stages, the 768px stage and those of deep compression.
    """
    cfg = curriculum.get_config()
    for names, count in zip((SHORT, LONG, DEEP), whole, strict=True):
        for name in names:
            cfg.stages[name].mesh.fsdp = fsdp
            cfg.stages[name].model.remat = remat
            cfg.stages[name].model.remat_blocks = (DOUBLE, SINGLE - count) if count else None
    for name in LONG:
        cfg.stages[name].mesh.update(fsdp=max(1, fsdp // sequence), sequence=sequence)
    return cfg
