"""Open-Sora 2.0 in JAX and Flax.

Public names are loaded on first use, so that `import osjax` and `osjax --help` stay fast and import no jax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
version = __version__

if TYPE_CHECKING:  # what type checkers and editors see; at run time `_PUBLIC` says where each name lives
    from osjax import models, weights
    from osjax.models import build
    from osjax.parts.config import load as load_config
    from osjax.parts.pipeline import Pipeline
    from osjax.planning.api import plan
    from osjax.sampling.sample import Sample
    from osjax.sampling.settings import SampleSettings

# public name -> (module, attribute); an attribute of None is the module itself
_PUBLIC = {
    "load_config": ("osjax.parts.config", "load"),
    "models": ("osjax.models", None),
    "weights": ("osjax.weights", None),
    "Pipeline": ("osjax.parts.pipeline", "Pipeline"),
    "SampleSettings": ("osjax.sampling.settings", "SampleSettings"),
    "Sample": ("osjax.sampling.sample", "Sample"),
    "plan": ("osjax.planning.api", "plan"),
    "build": ("osjax.models", "build"),
}

__all__ = ["Pipeline", "Sample", "SampleSettings", "build", "load_config", "models", "plan", "version", "weights"]


if not TYPE_CHECKING:  # to a checker it would be a promise of any name

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'osjax' has no attribute {name!r}")
        module, attribute = _PUBLIC[name]
        loaded = import_module(module)
        return loaded if attribute is None else getattr(loaded, attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
