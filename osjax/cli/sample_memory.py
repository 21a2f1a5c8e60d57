"""`osjax sample --memory`: what sampling needs of a device that is here, or of a TPU that is not."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from osjax import atomic
from osjax.errors import UserError
from osjax.parallel import mesh as device_mesh
from osjax.parts import pipeline, sampling
from osjax.parts.stage import MeshKeys
from osjax.planning import aot
from osjax.sampling import memory
from osjax.sampling.pipeline import Pipeline


def run(cfg: ConfigDict, topology: str | None) -> None:
    """Print the table of a sampling config, for the devices here or for those of a TPU topology."""
    keys = sampling.of_config(cfg)
    mesh = topology_mesh(topology, keys.mesh) if topology else None
    report(pipeline.of_keys(keys, mesh), Path(keys.output.folder), mesh)


def topology_mesh(name: str, sizes: MeshKeys) -> Mesh:
    """The mesh of these sizes on TPUs that are only compiled for.

    name: of the topology, such as v5p:2x2x1. UserError without libtpu or for an unknown name.
    """
    try:
        devices = aot.tpu_devices(name)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise UserError(
            f"topology {name!r} cannot be compiled for ({error}): install osjax[tpu], and give a name like v5p:2x2x1"
        ) from error
    axes = [getattr(sizes, axis) for axis in device_mesh.AXES]
    wanted = math.prod(axes) if min(axes) > 0 else len(devices)
    return device_mesh.make(**vars(sizes), devices=devices[:wanted])


def report(pipe: Pipeline, folder: Path, mesh: Mesh | None = None) -> None:
    """Print a table of the bytes that a pipeline's own settings need, and keep it with the same figures as JSON.

    pipe: whose programs are compiled; no weights are read. folder: where memory.md and memory.json go, made if missing.
    mesh: the one that the pipeline was made for; None: the first device that is here. UserError for settings that its
    models cannot take.
    """
    settings = pipe.settings
    pipe.check(settings)
    programs = memory.measure(pipe, settings)
    height, width = pipe.size(settings)
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    title = f"{settings.mode}, {settings.frames} frames of {width}x{height}, compiled for {device.device_kind}"
    title += f"; {pipe.calls(settings)} calls of the video model"
    table = memory.table(programs, title)
    print(table)
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_text(folder / "memory.md", table + "\n")
    figures = {
        "settings": pipe.describe(settings),
        "device": device.device_kind,
        "calls": pipe.calls(settings),
        "programs": [asdict(program) for program in programs],
        "peak": memory.together(programs),
        "peak_offloaded": memory.offloaded(programs),
    }
    atomic.write_text(folder / "memory.json", json.dumps(figures, indent=2) + "\n")
