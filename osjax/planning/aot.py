"""Compile for accelerators that are not here: TPU slices with libtpu, GPUs with the CUDA plugin and a description."""

import logging
import os
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from osjax.errors import UserError
from osjax.planning import hlo
from osjax.planning.targets import Target
from osjax.types import Json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program, in bytes on one device. host: pinned memory. seconds: of compilation.

    collectives: None where the compiled program cannot be read.
    """

    arguments: int
    output: int
    temporaries: int
    peak: int
    host: int
    collectives: tuple[hlo.Collective, ...] | None
    seconds: float


def available(target: Target) -> bool:
    """Whether the compiler for a target is installed."""
    if target.chip.platform == "tpu":
        return find_spec("libtpu") is not None
    described = _description(target).is_file()
    return described and find_spec("jax_plugins") is not None and find_spec("jax_plugins.xla_cuda13") is not None


def devices(target: Target) -> list[jax.Device]:
    """Devices to make a mesh of and compile for. UserError where the compiler does not know the target."""
    try:
        if target.chip.platform == "tpu":
            return tpu_devices(target.topology)
        return list(_gpu_topology(target).devices)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        first = str(error).splitlines()[0][:200]
        raise UserError(f"{target.says} cannot be compiled for ({first}): give another shape") from error


def tpu_devices(topology: str) -> list[jax.Device]:
    """The devices of a TPU slice, to compile for and not to run on.

    topology: of the slice, such as v5p:2x2x1. jax's RuntimeError, NotImplementedError or ValueError where libtpu is not
    there or does not know the topology.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # do not look for a TPU's own settings on the network
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no TPU is used: others may compile at the same time
    return list(topologies.get_topology_desc(topology, platform="tpu").devices)


def _gpu_topology(target: Target) -> Any:
    options = {"target_config": _description(target).read_text(), "topology": target.topology}
    try:
        return topologies.get_topology_desc(target.chip.name, platform="cuda", **options)
    except (RuntimeError, ValueError, KeyError):  # without a GPU jax may not have loaded the plugin
        import_module("jax_plugins.xla_cuda13").initialize()
        return topologies.get_topology_desc(target.chip.name, platform="cuda", **options)


def _description(target: Target) -> Any:
    """The file that tells the compiler what a GPU is."""
    return resources.files("osjax.planning") / "gpus" / f"{target.chip.name}.txtpb"


def compile_program(lowered: jax.stages.Lowered, mesh: Mesh) -> Compiled:
    """What the compiler says of a program: its memory, and its collectives by the axes of `mesh`.

    lowered: for devices of the mesh. UserError where the program does not fit one of them.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            program = lowered.compile(_options(mesh.devices.flat[0].platform, folder))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(f"does not fit the device: {str(error).splitlines()[0][:200]}") from error
        seconds = time.perf_counter() - started
        text = _text(program, Path(folder))
    memory = program.memory_analysis()
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return Compiled(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
        total - memory.alias_size_in_bytes,  # buffers that inputs and outputs share count once
        memory.host_temp_size_in_bytes,
        None if text is None else tuple(hlo.collectives(text, mesh)),
        seconds,
    )


def _options(platform: str, folder: str) -> Json | None:
    """Options of the compiler for GPUs and TPUs that are not there. folder: where a TPU's writes the program."""
    if platform in ("gpu", "cuda"):  # the compiler's own kernels for products may have no size that works untried
        return {"xla_gpu_enable_triton_gemm": False}
    return {"xla_dump_to": folder, "xla_dump_hlo_as_text": True} if platform == "tpu" else None


def _text(program: jax.stages.Compiled, folder: Path) -> str | None:
    """The compiled program; as its compiler wrote it where jax knows an older form of HLO than that compiler."""
    written = sorted(folder.glob("*.after_optimizations.txt"))
    if written:
        return written[-1].read_text()
    try:
        return program.as_text()
    except jax.errors.JaxRuntimeError as error:
        log.warning("the compiled program cannot be read, collectives are arithmetic: %s", str(error).splitlines()[0])
        return None
