"""The shipped configs, the package `osjax.configs`: in a clone the folder `configs` at its top, where people edit them.

An installed wheel has them in a folder of this name beside this file, which Python takes before it.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[1] / "configs")]
