"""What a pipeline can be told by keyword besides what it is made of, stated once for its constructors."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from jax.sharding import Mesh

from osjax.sampling.autoencoder import Autoencoder
from osjax.sampling.calibration import Calibration
from osjax.sampling.distilled import Distilled
from osjax.sampling.encoders import PromptEncoder
from osjax.sampling.settings import Changes
from osjax.sampling.t2i2v import ImagePipeline


class Options(TypedDict, total=False):
    """How a pipeline holds its models.

    mesh: to split the velocity model and its samples over; the rest runs on one device. offload: keep weights on the
    host and bring them to the device one model after the other. int8: the velocity model's blocks with int8 weights,
    quantised on the host (see sampling/int8.py). image: makes the text-to-image pipeline of mode t2i2v, which is
    loaded, used and freed. calibration: where what `osjax calibrate` measures of the model lies. distilled: what a
    distilled model can be asked for.
    """

    mesh: Mesh | None
    offload: bool
    int8: bool
    image: Callable[[], ImagePipeline] | None
    calibration: Calibration | None
    distilled: Distilled | None


class RunOptions(Options, total=False):
    """What a pipeline of a run's models can be told besides `Options`.

    settings: fields of SampleSettings on top of the workdir's. autoencoder, text: for runs that used those of files.
    dtype, attention: of the video model, instead of those that it was trained with. adapter: LoRA to add, a
    .safetensors, a folder of peft, a run that trained one or its checkpoints, times adapter_strength. adapters: more of
    them, rows (path, strength).
    """

    settings: Changes | None
    autoencoder: Autoencoder | None
    text: PromptEncoder | None
    dtype: str | None
    attention: str
    adapter: str | None
    adapter_strength: float
    adapters: Sequence[tuple[str, float]]


def check_names(options: Mapping[str, object], known: type) -> None:
    """TypeError for a keyword that a TypedDict does not have, as Python raises it for functions that name theirs.

    options: what was given. known: the TypedDict.
    """
    if wrong := sorted(options.keys() - known.__annotations__.keys()):
        raise TypeError(f"unexpected keyword argument {wrong[0]!r}: there are {', '.join(known.__annotations__)}")
