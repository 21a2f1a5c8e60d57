"""The teacher of a stage that distils: read once, on the stage's mesh, and in no checkpoint."""

import flax.linen as nn
import jax.numpy as jnp

from osjax import models
from osjax.parallel import sharding
from osjax.parts.run import Recipe
from osjax.training.distil import Taught
from osjax.weights import load
from osjax.weights.leaves import Leaves


def read(leaves: Leaves, recipe: Recipe) -> tuple[Taught, Taught]:
    """The teacher on the mesh in float32, and its shardings.

    leaves: its parameters on disk. recipe: of the stage.
    """
    assert recipe.taught is not None  # whoever asks has seen to it
    boxed = models.abstract_params(recipe.taught.teacher)
    places = sharding.of_boxed(boxed, recipe.mesh)
    assert nn.unbox(boxed).keys() == places.keys()
    return Taught(load.place(leaves, places, jnp.float32)), Taught(places)
