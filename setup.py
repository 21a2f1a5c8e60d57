"""Which packages are installed. All else is in pyproject.toml.

The configs stay at the top of the repository, where people edit them, and are installed as `osjax.configs`: a package
of their own named `configs` would hide a user's, or be hidden by it.
"""

from setuptools import find_packages, setup

CONFIGS = [f"osjax.{name}" for name in find_packages(include=["configs", "configs.*"])]

setup(
    packages=[*find_packages(include=["osjax", "osjax.*"]), *CONFIGS],
    package_dir={"osjax.configs": "configs"},
)
