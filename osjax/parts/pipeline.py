"""The sampling pipeline with its models loaded: from a config, or from the workdir of a run."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError, usage
from osjax.models.velocity import VideoConfig
from osjax.parallel import mesh as device_mesh
from osjax.parts import autoencoder as autoencoders
from osjax.parts import calibrated, released, sampling, stored, text, video_model
from osjax.parts import dtype as dtypes
from osjax.parts import text as texts
from osjax.parts.groups import refuse, said, to_dataclass
from osjax.parts.sampling import SamplingKeys
from osjax.parts.stage import MeshKeys
from osjax.parts.text import TextKeys
from osjax.parts.video_model import VideoModelKeys
from osjax.sampling import workdir
from osjax.sampling.autoencoder import Autoencoder
from osjax.sampling.options import Options, RunOptions, check_names
from osjax.sampling.pipeline import Pipeline
from osjax.sampling.placement import Stored
from osjax.sampling.settings import Changes, SampleSettings
from osjax.training import checkpoint
from osjax.weights import load
from osjax.weights.layout import OPEN_SORA_V2, layout_named
from osjax.weights.leaves import Leaves


def from_config(cfg: ConfigDict, mesh: Mesh | None = None) -> Pipeline:
    """The pipeline of a sampling config (keys: `osjax.parts.sampling.SamplingKeys`). Weights are read when first used.

    mesh: instead of the config's, such as one of devices that are only compiled for. UserError for what cannot be
    sampled from, and for keys that nothing would read.
    """
    return of_keys(sampling.of_config(cfg), mesh)


@usage()
def of_keys(keys: SamplingKeys, mesh: Mesh | None = None) -> Pipeline:
    """The pipeline of the checked keys of a sampling config. mesh, UserError: see `from_config`."""
    if mesh is None and keys.mesh != MeshKeys(1, 1, 1, 1):
        mesh = device_mesh.make(**vars(keys.mesh))
    released.check(_files(keys))
    image = _image_model(keys)
    options = Options(mesh=mesh, offload=keys.offload, int8=keys.int8, image=image)
    if keys.workdir:
        return _of_workdir(keys.workdir, keys, options)
    if not keys.model.weights:
        raise UserError("nothing to sample from: give config.workdir, or config.model.weights", status=2)
    settings = to_dataclass(SampleSettings, said(keys.sample), "sample")
    computes = keys.dtype or "bfloat16"
    words = text.of_keys(keys.text).encoder(computes, keys.offload)
    velocity = video_model.of_keys(keys.model, "model", computes, keys.attention, *_devices(mesh))
    options["calibration"] = calibrated.of_weights(keys.model.weights)
    return Pipeline(*velocity, _autoencoder(keys.autoencoder, "autoencoder"), words, settings=settings, **options)


def _files(keys: SamplingKeys) -> dict[str, str | None]:
    """The files and folders that a sampling config names, by key."""
    video, still = keys.model, keys.image
    return {
        "model.weights": video.weights,
        "autoencoder.weights": keys.autoencoder.weights,
        "text.t5": keys.text.t5,
        "text.clip": keys.text.clip,
        "image.model.weights": still.model.weights,
        "image.autoencoder.weights": still.autoencoder.weights,
    }


def from_checkpoint(folder: Path | str, **options: Unpack[RunOptions]) -> Pipeline:
    """The models that `osjax demo` or a training run left in its workdir, with its sizes as defaults.

    folder: the workdir. options: what to change or to add, and how to hold the models: see `RunOptions` and `Options`.
    UserError where the folder holds no finished run.
    """
    check_names(options, RunOptions)
    folder = Path(folder)
    run = workdir.read(folder)
    denoiser, text = run.denoiser, run.text or options.get("text")
    autoencoder, dtype = options.get("autoencoder"), options.get("dtype")
    if denoiser is None:
        raise UserError(f"the run in {folder} trained an autoencoder alone: osjax eval recon --workdir={folder}")
    if run.autoencoder:
        newest = partial(_leaves, folder, run.autoencoder)
        params = stored.of_leaves(run.autoencoder.config, newest, "float32")
        autoencoder = Autoencoder(models.build(run.autoencoder.config), params, run.latent_scale)
    elif autoencoder is None and "autoencoder" in run.files:
        given = to_dataclass(autoencoders.AutoencoderKeys, run.files["autoencoder"], f"{folder / workdir.FILE}")
        autoencoder = _autoencoder(given, "autoencoder")
    if text is None and "text" in run.files:
        text = texts.of_keys(to_dataclass(TextKeys, run.files["text"], f"{folder / workdir.FILE}")).encoder(
            dtype or "bfloat16", options.get("offload", False)
        )
    if text is None or autoencoder is None:
        raise UserError(f"the run in {folder} used an autoencoder or text encoders of files: name them in a config")
    changes = options.get("settings") or Changes()
    to_dataclass(SampleSettings, {**run.settings, **changes}, "sample")  # names wrong keys
    strength, more = options.get("adapter_strength", 1.0), tuple(options.get("adapters", ()))
    added = VideoModelKeys(adapter=options.get("adapter"), adapter_strength=strength, adapters=more)
    video_model.check_adapter(added, "model")
    changed = _changed(denoiser.config, dtype, options.get("attention", "auto"), options.get("mesh"))
    denoiser = replace(denoiser, config=changed)
    run = replace(run, denoiser=denoiser)
    return Pipeline(
        models.build(denoiser.config),
        _stored(folder, run, dtype or "float32", added),
        autoencoder,
        text,
        settings=SampleSettings(**run.settings).changed(**changes),
        mesh=options.get("mesh"),
        offload=options.get("offload", False),
        int8=options.get("int8", False),
        image=options.get("image"),
        distilled=run.distilled,
        calibration=calibrated.of_run(folder, denoiser, run.files.get("model", {}).get("weights")),
    )


# Constructors that read configs and workdirs stand above the pipeline's own floor, so they join it here.
Pipeline.from_config = staticmethod(from_config)
Pipeline.from_checkpoint = staticmethod(from_checkpoint)


def _changed(cfg: VideoConfig, dtype: str | None, attention: str, mesh: Mesh | None) -> VideoConfig:
    """The config of a trained model with another dtype or attention, where one is asked for or the devices need it."""
    if dtype is not None:
        dtypes.named(dtype, "config key dtype")
        cfg = replace(cfg, dtype=dtype)
    return video_model.suited(cfg, *_devices(mesh)) if attention == "auto" else replace(cfg, attention=attention)


def _devices(mesh: Mesh | None) -> tuple[str, int]:
    """The platform of the devices that sample, and how many of them share a sequence."""
    return (jax.devices()[0].platform, 1) if mesh is None else (mesh.devices.flat[0].platform, mesh.shape["sequence"])


def _of_workdir(folder: str, keys: SamplingKeys, options: Options) -> Pipeline:
    """The pipeline of a config that names a run; what was not trained there comes from the files that it names."""
    run, why = workdir.read(folder), f"the run in {folder} has its own"
    refuse(keys.model, "model", ("adapter", "adapter_strength", "adapters"), why)
    autoencoder = words = None
    if run.autoencoder:
        refuse(keys.autoencoder, "autoencoder", (), why)
    elif keys.autoencoder.weights or "autoencoder" not in run.files:
        autoencoder = _autoencoder(keys.autoencoder, "autoencoder")
    else:
        refuse(keys.autoencoder, "autoencoder", (), f"autoencoder.weights is not given, and {why}")
    if run.text:
        refuse(keys.text, "text", (), why)
    elif keys.text.t5 or "text" not in run.files:
        words = text.of_keys(keys.text).encoder(keys.dtype or "bfloat16", keys.offload)
    else:
        refuse(keys.text, "text", (), f"text.t5 is not given, and {why}")
    return from_checkpoint(
        folder,
        settings=Changes(**said(keys.sample)),
        autoencoder=autoencoder,
        text=words,
        dtype=keys.dtype,
        attention=keys.attention,
        adapter=keys.model.adapter,
        adapter_strength=keys.model.adapter_strength,
        adapters=keys.model.adapters,
        **options,
    )


def _image_model(keys: SamplingKeys) -> Callable[[], Pipeline] | None:
    """What makes the text-to-image pipeline of mode t2i2v, on one device; None where nobody names its weights.

    Its keys are checked in every mode: a call may ask for another one than the config.
    """
    if not keys.image.model.weights:
        why = "image.model.weights is not given"
        refuse(keys.image.model, "image.model", (), why, layout="flux")
        refuse(keys.image.autoencoder, "image.autoencoder", (), why)
        return None
    computes = keys.dtype or "bfloat16"
    still = video_model.of_keys(keys.image.model, "image.model", computes, keys.attention, jax.default_backend())
    pixels = _autoencoder(keys.image.autoencoder, "image.autoencoder")

    def make() -> Pipeline:
        own = workdir.read(keys.workdir).text if keys.workdir else None
        words = own or text.of_keys(keys.text).encoder(computes, keys.offload)
        return Pipeline(*still, pixels, words, offload=keys.offload, int8=keys.int8)

    return make


def _autoencoder(keys: autoencoders.AutoencoderKeys, key: str) -> Autoencoder:
    part = autoencoders.of_keys(keys, key)
    video_model.require(keys.weights, f"{key}.weights")
    return autoencoders.unread(part)


def _stored(folder: Path, run: workdir.Workdir, dtype: str, added: VideoModelKeys) -> Stored:
    """Parameters of the video model of a run, as `dtype`, with adapters of the run and `added` ones."""
    model = run.denoiser
    assert model is not None  # `from_checkpoint` has seen to it
    base, layout = partial(_leaves, folder, model), OPEN_SORA_V2
    if model.checkpoints is None:
        given = run.files.get("model", {})
        weights = given.get("weights")
        video_model.require(weights, f"{folder / workdir.FILE}: files.model.weights", "it back, or train anew")
        layout = layout_named(given.get("layout", "open_sora_v2"), "files.model.layout")
        average = bool(given.get("average", True))
        base = partial(load.open_leaves, model.config, str(weights), layout=layout, average=average)

    def open_trained() -> Leaves:
        own = VideoModelKeys(adapter=model.adapter and str(_newest(folder / model.adapter)))
        return video_model.adapted(base, model.config, own, OPEN_SORA_V2)()

    return stored.of_leaves(model.config, video_model.adapted(open_trained, model.config, added, OPEN_SORA_V2), dtype)


def _leaves(folder: Path, model: workdir.TrainedModel) -> Leaves:
    return load.open_leaves(model.config, _newest(folder / str(model.checkpoints)), average=model.averaged)


def _newest(checkpoints: Path) -> Path:
    if not checkpoints.is_dir():
        raise UserError(f"{checkpoints} does not exist: the run did not finish, run it again")
    store = checkpoint.Checkpoints(checkpoints)  # sets damaged ones aside
    try:
        return checkpoints / str(store.require())
    finally:
        store.close()
