"""Open-Sora 2.0 in JAX and Flax.

Public names are loaded on first use, so that `import osjax` and `osjax --help` stay fast and import no jax.
"""

from importlib import import_module

__version__ = "0.1.0"
version = __version__

# public name -> (module, attribute)
_PUBLIC = {
    "load_config": ("osjax.run.config", "load"),
    "Pipeline": ("osjax.run.pipeline", "Pipeline"),
    "build": ("osjax.models", "build"),
}

__all__ = ["Pipeline", "build", "load_config", "version"]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'osjax' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__():
    return sorted([*globals(), *_PUBLIC])
