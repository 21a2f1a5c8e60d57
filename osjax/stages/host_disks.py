"""The fast tier of a stage's checkpoints, on hosts' own disks: which folder is whose."""

import json
import uuid

import jax
from etils import epath

from osjax import json_file
from osjax.errors import UserError
from osjax.parallel import exchange
from osjax.parts.place import Place
from osjax.parts.run import Recipe
from osjax.training.host_disk import HostDisk
from osjax.training.local_tier import LocalTier

NAME = "local_checkpoints.json"  # in the stage's folder on the store


def open_tier(recipe: Recipe, place: Place) -> LocalTier | None:
    """The tier of a stage; None where the run keeps none. All processes call it together.

    recipe: of the stage. place: where the run keeps things.
    """
    if place.local is None or not recipe.keys.checkpoint.local_every:
        return None
    told = exchange.of_process_0(_identity(place.of(recipe.name).parent) if jax.process_index() == 0 else None)
    folder = place.local / told / recipe.name
    return LocalTier(HostDisk(folder, jax.process_index(), recipe.keys.checkpoint.local_keep))


def _identity(folder: epath.Path) -> str:
    """A name of the stage's work that no other has, kept with its checkpoints on the store.

    So what hosts' disks have of another run in a folder of the same name, or of one that was deleted, is never taken
    for this one's.
    """
    path = folder / NAME
    if path.exists():
        try:
            told = str(json_file.read(path, "", ("run",))["run"])
            if len(told) == 32 and told.isalnum():
                return told
        except UserError:  # made anew: what is on hosts' disks is lost then, what the store has is not
            pass
    made = uuid.uuid4().hex
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run": made}))
    return made
