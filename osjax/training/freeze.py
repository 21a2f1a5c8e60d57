"""Which parameters train. Frozen ones get no gradient, no moments and no average: trees hold None in their place."""

from dataclasses import dataclass
from typing import Any, TypeVar

import flax.linen as nn
import jax

from osjax.errors import UserError
from osjax.models import patterns
from osjax.types import Tree

Same = TypeVar("Same")


@dataclass(frozen=True)
class Freeze:
    """Which parameters stay as they are.

    params: patterns of their paths, such as `double_blocks/txt_mlp_in/kernel`. but: patterns of exceptions that train.

    `*` stands for any text, slashes too; a pattern that names a group, such as `img_in`, means all below it.
    """

    params: tuple[str, ...] = ()
    but: tuple[str, ...] = ()

    def trained(self, tree: Same) -> Same:
        """The tree with None in place of every frozen leaf.

        UserError for a pattern that no parameter fits, and where nothing is left to train.
        """
        if not self.params:
            return tree
        leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_box)
        names = [_name(path) for path, _ in leaves]
        patterns.check("freeze.params", self.params, names)
        patterns.check("freeze.but", self.but, names)
        if all(map(self._frozen, names)):
            raise UserError("freeze.params leaves nothing to train: name fewer, or exceptions in freeze.but", status=2)
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: None if self._frozen(_name(path)) else leaf, tree, is_leaf=_is_box
        )

    def share(self, tree: Tree) -> float:
        """How much of a tree trains, of all its values."""
        return _size(self.trained(tree)) / _size(tree)

    def _frozen(self, name: str) -> bool:
        return patterns.fits(name, self.params) and not patterns.fits(name, self.but)


def fill(trained: Same, whole: Same) -> Same:
    """`trained` with the leaves of `whole` where it holds None."""
    return jax.tree.map(lambda t, w: w if t is None else t, trained, whole, is_leaf=lambda x: x is None)


def like(trained: Same, whole: Same) -> Same:
    """`whole` with None where `trained` holds None."""
    return jax.tree.map(lambda t, w: None if t is None else w, trained, whole, is_leaf=lambda x: x is None)


def _size(tree: Tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
