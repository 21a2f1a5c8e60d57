"""How osjax is put together. All else is in pyproject.toml.

`src/osjax` is a link to the package. An editable install is a line in a `.pth` that names `src`, so that the package is
found there, ahead of a folder that is only called osjax, such as the clone beside which Python was started, and nothing
else of the clone is importable. The configs stay at the top of the repository, where people edit them, and a wheel has
them as `osjax.configs`: a package of their own named `configs` would hide a user's, or be hidden by it.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CONFIGS = sorted(Path("configs").rglob("*.py"))


class BuildWithConfigs(build_py):
    """Puts the configs into the package, where it is copied: in place `osjax/configs.py` finds them."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for path in CONFIGS:
                into = Path(self.build_lib, "osjax", path)
                self.mkpath(str(into.parent))
                self.copy_file(str(path), str(into))

    def get_source_files(self):
        return [*super().get_source_files(), *map(str, CONFIGS)]


setup(
    packages=find_packages("src", include=["osjax", "osjax.*"]),
    package_dir={"": "src"},
    cmdclass={"build_py": BuildWithConfigs},
)
