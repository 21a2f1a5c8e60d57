"""Constraints for pip that pin every dependency to the oldest version that pyproject.toml allows.

`python .ci/oldest.py EXTRA... > constraints.txt`: of the core and of those extras. With --newest: none at all but the
names and lower bounds, as requirements, so that `pip install -r` takes versions that pyproject.toml does not allow yet.
"""

import re
import sys
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?P<extras>\[[\w,-]+\])?(?:>=(?P<oldest>[\w.]+))?")


def main(*arguments: str) -> None:
    newest = "--newest" in arguments
    extras = [name for name in arguments if name != "--newest"]
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [line for name in extras for line in project["optional-dependencies"][name]]
    for line in dict.fromkeys(wanted):
        found = REQUIREMENT.match(line)
        if newest:
            print(found[0])
        elif found["oldest"]:
            print(f"{found['name']}=={found['oldest']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
