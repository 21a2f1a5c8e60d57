"""`osjax.Pipeline`: the sampling pipeline with its models loaded, from a config or from the workdir of a run."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from osjax import models, weights
from osjax.conditioning.text import TextEncoder
from osjax.errors import UserError
from osjax.parallel import mesh as device_mesh
from osjax.run import adapters, config, stored, text_encoders
from osjax.sampling import pipeline, workdir
from osjax.sampling.placement import Stored
from osjax.sampling.settings import SampleSettings
from osjax.training import checkpoint
from osjax.weights import load
from osjax.weights.leaves import Leaves
from osjax.weights.lora import merged

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Pipeline(pipeline.Pipeline):
    """`pipe(prompts, mode=..., refs=..., ...)` -> Sample, see `osjax.sampling.pipeline.Pipeline`."""

    @classmethod
    def from_config(cls, cfg: ConfigDict, mesh: Mesh | None = None) -> "Pipeline":
        """The pipeline of a sampling config (keys in configs/sample/options.py). Weights are read when first used.

        mesh: instead of the config's, such as one of devices that are only compiled for.
        """
        if mesh is None and any(size != 1 for size in cfg.mesh.values()):
            mesh = device_mesh.make(**cfg.mesh)
        options = {"mesh": mesh, "offload": cfg.offload, "int8": cfg.int8}
        options["image"] = partial(cls._of_images, cfg) if cfg.image.model.weights else None
        if cfg.workdir:
            found = workdir.read(cfg.workdir)
            # What was not trained there comes from the files that the config names.
            missing = {} if found.autoencoder else {"autoencoder": _autoencoder(cfg, "autoencoder")}
            missing |= {} if found.text else {"text": _text(cfg)}
            return cls.from_checkpoint(cfg.workdir, settings=asked(cfg.sample), **missing, **options)
        if not cfg.model.weights:
            raise UserError("nothing to sample from: give config.workdir, or config.model.weights", status=2)
        text = _text(cfg)
        settings = config.to_dataclass(SampleSettings, asked(cfg.sample), "sample")
        device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
        velocity = _model(cfg, "model", device.platform)
        return cls(*velocity, _autoencoder(cfg, "autoencoder"), text, settings=settings, **options)

    @classmethod
    def _of_images(cls, cfg: ConfigDict) -> "Pipeline":
        """The text-to-image pipeline of mode t2i2v, on one device."""
        text = workdir.read(cfg.workdir).text if cfg.workdir else _text(cfg)
        models_of = (*_model(cfg, "image.model", jax.default_backend()), _autoencoder(cfg, "image.autoencoder"))
        return cls(*models_of, text, offload=cfg.offload, int8=cfg.int8)

    @classmethod
    def from_checkpoint(
        cls,
        folder: Path | str,
        *,
        settings: Mapping[str, Any] | None = None,
        mesh: Mesh | None = None,
        autoencoder: pipeline.Autoencoder | None = None,
        text: Any = None,
        **options: Any,
    ) -> "Pipeline":
        """The models that `osjax demo` or a training run left in its workdir, with its sizes as defaults.

        settings: keys of SampleSettings on top of the workdir's. autoencoder, text: for runs that used those of files.
        options: `offload`, `int8`, `image` of the pipeline. UserError where the folder holds no finished run.
        """
        folder = Path(folder)
        found = workdir.read(folder)
        denoiser, text = found.denoiser, found.text or text
        if denoiser is None:
            raise UserError(f"the run in {folder} trained an autoencoder alone: osjax eval recon --workdir={folder}")
        if text is None or not (found.autoencoder or autoencoder):
            raise UserError(f"the run in {folder} used an autoencoder or text encoders of files: name them in a config")
        config.to_dataclass(SampleSettings, {**found.settings, **(settings or {})}, "sample")  # names wrong keys
        if ae := found.autoencoder:
            params = _stored(folder, ae)
            autoencoder = pipeline.Autoencoder(models.build(ae.config), params, found.latent_scale)
        return cls(
            models.build(denoiser.config),
            _stored(folder, denoiser),
            autoencoder,
            text,
            settings=SampleSettings(**found.settings).changed(**(settings or {})),
            mesh=mesh,
            **options,
        )


def asked(group: ConfigDict) -> dict[str, Any]:
    """The keys of a `sample` group that say something; None leaves a choice to the workdir or the default."""
    return {key: value for key, value in group.items() if value is not None}


def _stored(folder: Path, model: workdir.TrainedModel) -> Stored:
    """Parameters of the newest sound checkpoint of a run."""

    def open_newest() -> Leaves:
        leaves = load.open_leaves(model.config, _newest(folder / model.checkpoints), average=model.averaged)
        if model.adapter is None:
            return leaves
        return merged(leaves, adapters.read(_newest(folder / model.adapter), model.config))

    return stored.of_leaves(model.config, open_newest, "float32")


def _newest(checkpoints: Path) -> Path:
    if not checkpoints.is_dir():
        raise UserError(f"{checkpoints} does not exist: the run did not finish, run it again")
    store = checkpoint.Checkpoints(checkpoints)  # sets damaged ones aside
    try:
        return checkpoints / str(store.require())
    finally:
        store.close()


def _text(cfg: ConfigDict) -> Any:
    """T5 and CLIP where their folders are given, else the built-in encoder."""
    if bool(cfg.text.t5) != bool(cfg.text.clip):
        raise UserError("config.text.t5 and config.text.clip belong together: give both folders, or neither", status=2)
    if cfg.text.t5:
        return text_encoders.load(cfg.text.t5, cfg.text.clip, cfg.dtype, cfg.offload)
    return TextEncoder(cfg.text.width, cfg.text.max_length)


def _model(cfg: ConfigDict, name: str, platform: str) -> tuple[nn.Module, Stored]:
    group = _group(cfg, name)
    layout = weights.layout_named(group.layout, f"config key {name}.layout")
    attention = cfg.attention
    if attention == "auto":
        attention = "blockwise" if platform == "cpu" else "flash"
    fields = {"attention": attention, **group.config, "dtype": cfg.dtype}
    model_cfg = config.to_dataclass(models.config_class("mmdit"), fields, f"{name}.config")
    return models.build(model_cfg), _file(model_cfg, group, cfg.dtype, layout=layout)


def _autoencoder(cfg: ConfigDict, name: str) -> pipeline.Autoencoder:
    group = _group(cfg, name)
    ae_cfg = config.to_dataclass(models.config_class(group.family), group.config, f"{name}.config")
    if group.dtype not in DTYPES:
        raise UserError(f"config key {name}.dtype is {group.dtype!r}: use one of {', '.join(DTYPES)}", status=2)
    module = models.build(ae_cfg).clone(dtype=DTYPES[group.dtype])
    return pipeline.Autoencoder(module, _file(ae_cfg, group, "float32"))


def _group(cfg: ConfigDict, name: str) -> ConfigDict:
    for part in name.split("."):
        cfg = cfg[part]
    if not cfg.weights or not Path(cfg.weights).exists():
        raise UserError(f"config key {name}.weights is {cfg.weights!r}, which does not exist: give a .safetensors")
    return cfg


def _file(model_cfg: Any, group: ConfigDict, dtype: str, **options: Any) -> Stored:
    """Parameters from a file with the original's names or from a checkpoint, as `dtype`, with the group's adapters."""

    def open_leaves() -> Leaves:
        leaves = load.open_leaves(model_cfg, group.weights, **options)
        path = group.get("adapter")
        if not path:
            return leaves
        return merged(leaves, adapters.read(Path(path), model_cfg, **options), group.adapter_strength)

    return stored.of_leaves(model_cfg, open_leaves, dtype)
