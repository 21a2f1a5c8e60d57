"""A server on this machine, of what `osjax demo` trained.

Command:   osjax serve --workdir=runs/demo
Hardware:  2 CPU cores, 3 GB
Time:      some seconds until the first answer, about two for a video of the demo

`models` has a sampling config for each model that is served, by the name that clients give it; the first is the
default. `loras` has adapters by name, each a path or (path, strength), which clients may ask for on top of any model.
All other keys are fields of `ServerOptions` in osjax/serve/options.py.
"""

from ml_collections import ConfigDict

from osjax.configs.sample import demo
from osjax.parts.groups import group
from osjax.serve.options import ServerOptions


def get_config() -> ConfigDict:
    cfg = group(ServerOptions)
    cfg.models = ConfigDict({"demo": demo.get_config()})
    cfg.loras = ConfigDict()
    return cfg
