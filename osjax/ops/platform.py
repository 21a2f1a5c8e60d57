"""What a program that is being traced is for."""

import jax


def platform() -> str:
    """Where the program that is being traced will run: the platform of the mesh in force, else of the default backend.

    The mesh is asked first, because a program for a TPU pod may be compiled on a machine without one.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    return "gpu" if name == "cuda" else name
