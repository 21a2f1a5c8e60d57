"""Weight-decomposed adapters (DoRA): rows of an adapted matrix are brought to lengths of their own.

With matrix W, pair A, B and magnitudes m, one for each row, the layer's matrix is m (W + scale B A) / |W + scale B A|,
lengths taken over each row. What rows are multiplied with depends on the whole of them, so a window of a kernel needs
all inputs of its outputs: those of a block are read once, when the first window of the block is.
Source: Liu et al., arXiv:2402.09353, as peft has it.
"""

import threading
from collections.abc import Callable, Mapping

import numpy as np

from osjax.models import lora
from osjax.models.lora import LoRAConfig
from osjax.models.shapes import Shape
from osjax.weights.lora import Magnitudes, blank, parts_of, place_of_pair, window_of
from osjax.weights.rules import Path, Rule, Window, whole


class Gains:
    """What the outputs of adapted kernels are multiplied with.

    magnitudes: of the layers that are weight-decomposed; others have gain 1. shapes: of the model's leaves. summed:
    gives a window of a kernel with the products of its pair added, float32.
    """

    def __init__(
        self, magnitudes: Magnitudes, shapes: Mapping[Path, Shape], summed: Callable[[Path, Window], np.ndarray]
    ):
        cfg, layout = magnitudes.cfg, magnitudes.layout
        self._magnitudes, self._shapes, self._summed = magnitudes, shapes, summed
        self._rules = {name: parts_of(cfg, layout)[name] for name in magnitudes.rows}
        kernels = sorted({rule.leaf for rules in self._rules.values() for rule in rules})
        # A pair of rank 1 has a b in the very shape that gains have, blocks first.
        tree = blank(cfg, LoRAConfig(1, 1.0, tuple("/".join(path[:-1]) for path in kernels)))
        self._gains = {path: np.ones_like(pair["b"]) for path, pair in lora.pairs(tree).items()}
        self._layers: dict[tuple[Path, int], list[str]] = {}  # that a kernel's block is of
        for name, rules in self._rules.items():
            for rule in rules:
                self._layers.setdefault((rule.leaf, _block(rule)), []).append(name)
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def of(self, path: Path, window: Window) -> np.ndarray:
        """The gains of a window of a kernel, in a shape that multiplies it. path: of the kernel."""
        if path[:-1] not in self._gains:
            return np.ones((), np.float32)
        stacked, fused = int(path[0].endswith("_blocks")), int(path[-2] == "qkv")
        with self._lock:
            for block in range(window[0].start, window[0].stop) if stacked else (0,):
                for name in self._layers.get((path, block), ()):
                    if name not in self._known:
                        self._find(name)
                        self._known.add(name)
        gains = self._gains[path[:-1]]
        n_out = gains.ndim - 1 - stacked - fused  # one axis is the rank
        n_in = len(window) - stacked - fused - n_out
        parts = window[:stacked], window[stacked + n_in : stacked + n_in + fused], window[len(window) - n_out :]
        cut = gains[*parts[0], *parts[1], 0, *parts[2]]
        return cut.reshape(*cut.shape[:stacked], *(1,) * n_in, *cut.shape[stacked:])

    def _find(self, name: str) -> None:
        """Fill in the gains of one layer of the original."""
        rows = self._magnitudes.rows[name]
        squares = np.zeros(len(rows), np.float64)
        for rule in self._rules[name]:  # parts that share rows have different inputs of them
            squares[window_of(rule)[0]] += self._squares(rule)
        gain = (rows / np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))).astype(np.float32)
        for rule in self._rules[name]:
            path, _, at, order = place_of_pair(self._magnitudes.cfg, self._magnitudes.layout, rule)
            gains = self._gains[path]
            gains[at] = order.to_leaf(gain[window_of(rule)[0]].reshape(gains[at].shape))

    def _squares(self, rule: Rule) -> np.ndarray:
        """The squared lengths of the rows that a rule is of, over the inputs that it is of."""
        path, _, at, order = place_of_pair(self._magnitudes.cfg, self._magnitudes.layout, rule)
        stacked, fused = int(path[0].endswith("_blocks")), int(path[-1] == "qkv")
        shape = self._gains[path][at].shape  # 1, outputs
        window = list(whole(self._shapes[rule.leaf]))
        if stacked:
            window[0] = slice(_block(rule), _block(rule) + 1)
        n_in = len(window) - stacked - fused - (len(shape) - 1)
        if fused:
            which = rule.at[2]
            window[stacked + n_in] = slice(which, which + 1)
        kernel = self._summed(rule.leaf, tuple(window))
        squares = np.square(kernel, dtype=np.float64).sum(tuple(range(stacked, stacked + n_in)))
        return order.to_torch(squares.reshape(shape)).reshape(-1)


def _block(rule: Rule) -> int:
    return rule.at[0] if rule.at else 0
