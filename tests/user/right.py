"""A user's script, in which a type checker sees nothing wrong; `tests/test_user_types.py` asks it."""

from pathlib import Path

import numpy as np

import osjax
from osjax.errors import UserError


def videos(run: Path) -> list[Path]:
    pipe = osjax.Pipeline.from_checkpoint(run, settings={"steps": 8}, dtype="bfloat16", offload=True)
    settings = osjax.SampleSettings(mode="i2v_head", frames=17, guidance=5.0)
    sample: osjax.Sample = pipe(["a red circle"], refs=["first.png"], seeds=[3], settings=settings)
    pixels: np.ndarray = sample.videos_BTHWC
    print(pixels.shape, sample.settings["fps"])
    return sample.save(run / "samples")


def released() -> osjax.Pipeline:
    cfg = osjax.load_config("configs/sample/t2v_256.py", {"offload": True})
    return osjax.Pipeline.from_config(cfg)


def days(target: str) -> float:
    planned = osjax.plan("configs/curriculum.py", target, compiled=False, stages=("stage1_t2v_256",))
    return sum(stage["days"] for stage in planned["stages"])


def width_of_flux(tensors: dict[str, np.ndarray]) -> int:
    cfg = osjax.models.config("mmdit", hidden_size=256, num_heads=2)
    osjax.weights.from_torch(cfg, tensors, layout=osjax.weights.FLUX)
    try:
        osjax.build(cfg)
    except UserError as error:
        return error.status
    return cfg.hidden_size
