"""`osjax.Pipeline`: the sampling pipeline with its models loaded, from a config or from the workdir of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.parallel import mesh as device_mesh
from osjax.parallel import sharding
from osjax.run import config
from osjax.sampling import pipeline, workdir
from osjax.sampling.placement import Stored
from osjax.sampling.settings import SampleSettings
from osjax.training import checkpoint


class Pipeline(pipeline.Pipeline):
    """`pipe(prompts, mode=..., refs=..., ...)` -> Sample, see `osjax.sampling.pipeline.Pipeline`."""

    @classmethod
    def from_config(cls, cfg: ConfigDict) -> "Pipeline":
        """The pipeline of a config such as configs/sample/t2v_256.py. Weights are read when they are first used."""
        mesh = None if all(size == 1 for size in cfg.mesh.values()) else device_mesh.make(**cfg.mesh)
        return cls.from_checkpoint(
            cfg.workdir, settings=asked(cfg.sample), mesh=mesh, offload=cfg.offload, int8=cfg.int8
        )

    @classmethod
    def from_checkpoint(
        cls, folder: Path | str, *, settings: Mapping[str, Any] | None = None, mesh: Mesh | None = None, **options: Any
    ) -> "Pipeline":
        """The models that `osjax demo` or a training run left in its workdir, with its sizes as defaults.

        settings: keys of SampleSettings on top of the workdir's. options: `offload`, `int8`, `image` of the pipeline.
        UserError where the folder holds no finished run.
        """
        folder = Path(folder)
        found = workdir.read(folder)
        denoiser, ae = found.denoiser, found.autoencoder
        waits = bool(options.get("offload") or options.get("int8"))
        config.to_dataclass(SampleSettings, {**found.settings, **(settings or {})}, "sample")  # names wrong keys
        return cls(
            models.build(denoiser.config),
            _stored(folder, denoiser, mesh, waits),
            pipeline.Autoencoder(models.build(ae.config), _stored(folder, ae, None, waits), found.latent_scale),
            found.text,
            settings=SampleSettings(**found.settings).changed(**(settings or {})),
            mesh=mesh,
            **options,
        )


def asked(group: ConfigDict) -> dict[str, Any]:
    """The keys of a `sample` group that say something; None leaves a choice to the workdir or the default."""
    return {key: value for key, value in group.items() if value is not None}


def _stored(folder: Path, model: workdir.TrainedModel, mesh: Mesh | None, waits: bool) -> Stored:
    """Parameters of the newest checkpoint, to be read straight to the devices of the mesh or to the first one.

    waits: read them to the host, where they wait or are quantised, instead.
    """
    path, boxed = folder / model.checkpoints, models.abstract_params(model.config)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), nn.unbox(boxed))

    def read() -> Any:
        if not path.is_dir():
            raise UserError(f"{path} does not exist: the run in {folder} did not finish, run it again")
        one = jax.devices("cpu" if waits else None)[:1]
        shardings = sharding.of_boxed(boxed, device_mesh.make(devices=one) if waits or mesh is None else mesh)
        store = checkpoint.Checkpoints(path)
        try:
            return store.restore_weights(checkpoint.abstract_like(shapes, shardings), ema=model.averaged)
        finally:
            store.close()

    return Stored(shapes, read)
