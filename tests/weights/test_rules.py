"""Windows of leaves: what is read for a part of a leaf is that part of the whole leaf."""

import itertools

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from osjax import models, weights
from osjax.errors import UserError
from osjax.weights import leaves
from osjax.weights.rules import LINEAR, SAME, Op, Rule, check_table, reshape, take, transpose, whole
from tests import golden
from tests.models.test_mmdit import LAYOUTS, config, tensors

EVENS_FIRST = np.array([0, 2, 4, 1, 3, 5])
OPS = {
    "same": (SAME, (4, 6)),
    "linear": (LINEAR, (4, 6)),
    "split": (reshape((4, 6), (4, 2, 3)), (4, 6)),
    "split first": (reshape((6, 4), (3, 2, 4)), (6, 4)),
    "merge": (reshape((2, 3, 4), (6, 4)), (2, 3, 4)),
    "mixed": (reshape((6, 4), (4, 6)), (6, 4)),
    "ones": (reshape((4, 6), (4, 1, 6, 1)), (4, 6)),
    "drop ones": (reshape((4, 1, 6), (4, 6)), (4, 1, 6)),
    "permuted": (take(EVENS_FIRST, -1), (4, 6)),
    "heads": (take(EVENS_FIRST, -1) @ reshape((5, 12), (5, 2, 6)) @ transpose(1, 0), (12, 5)),
    "convolution": (transpose(2, 3, 4, 1, 0) @ reshape((4, 2, 3, 3), (4, 2, 1, 3, 3)), (4, 2, 3, 3)),
    "opaque": (Op(lambda x: x[::-1], lambda y: y[::-1]), (4, 6)),
}


def windows(shape):
    ranges = [[slice(0, n), slice(n // 2, n), slice(0, max(1, n // 3))] for n in shape]
    return itertools.product(*ranges)


class Counting:
    """An array that counts the values that are read of it."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

    def __getitem__(self, index):
        self.read += self.array[index].size
        return self.array[index]


@pytest.mark.parametrize("name", OPS)
def test_a_window_of_a_leaf_is_cut_from_a_window_of_the_tensor(name):
    op, shape = OPS[name]
    value = np.arange(np.prod(shape)).reshape(shape)
    full = op.to_leaf(value)
    np.testing.assert_array_equal(op.to_torch(full), value)
    for window in windows(full.shape):
        tensor = Counting(value)
        found = leaves.of_tensors([Rule("a", shape, ("leaf",), op)], {("leaf",): full.shape}, {"a": tensor})
        np.testing.assert_array_equal(found.read(("leaf",), window), full[window])
        if name in ("same", "linear"):
            assert tensor.read == full[window].size  # nothing beside it


@pytest.mark.parametrize("name", LAYOUTS)
def test_parts_of_every_leaf_of_the_transformer_are_parts_of_the_whole(name):
    cfg, given = config(name), tensors(name)
    lazy = weights.torch_leaves(cfg, given, layout=LAYOUTS[name])
    params = flatten_dict(weights.from_torch(cfg, given, layout=LAYOUTS[name]))
    for path, leaf in params.items():
        for half in (0, 1):
            window = whole(
                leaf.shape, [slice(half * n // 2, max((half + 1) * n // 2, half * n // 2 + 1)) for n in leaf.shape]
            )
            window = tuple(slice(w.start, min(w.stop, n)) for w, n in zip(window, leaf.shape, strict=True))
            np.testing.assert_array_equal(lazy.read(path, window), leaf[window], err_msg="/".join(path))


def test_a_device_s_part_of_a_split_projection_reads_only_its_rows():
    cfg, given = config("mmdit_a"), tensors("mmdit_a")
    name = "single_blocks.1.q_proj.weight"
    given[name] = Counting(given[name])
    lazy = weights.torch_leaves(cfg, given)
    path = ("single_blocks", "attn", "qkv", "kernel")
    blocks, *rest = lazy.shapes[path]
    half_the_heads = whole((blocks, *rest), (slice(None), slice(None), slice(None), slice(0, 1)))
    lazy.read(path, half_the_heads)
    assert given[name].read == given[name].array.size // 2


def test_a_table_with_a_hole_or_too_much_is_an_error_of_ours():
    rule = Rule("a", (2, 3), ("leaf",), at=(0,))
    check_table([rule, Rule("b", (2, 3), ("leaf",), at=(1,))], {("leaf",): (2, 2, 3)})
    with pytest.raises(ValueError, match="fills 6 of 12"):
        check_table([rule], {("leaf",): (2, 2, 3)})
    with pytest.raises(ValueError, match="fills 18 of 12"):
        check_table([rule] * 3, {("leaf",): (2, 2, 3)})
    with pytest.raises(ValueError, match="does not have"):
        check_table([rule], {("other",): (2, 2, 3)})
    wrong = leaves.of_tensors([Rule("a", (3, 2), ("leaf",))], {("leaf",): (2, 3)}, {"a": np.ones((3, 2))})
    with pytest.raises(ValueError, match="does not fit leaf"):
        wrong.read(("leaf",), (slice(0, 2), slice(0, 3)))


def test_two_names_of_one_tensor_must_agree():
    table = [Rule("a", (4,), ("leaf",)), Rule("b", (4,), ("leaf",), alias_of="a")]
    ones = np.ones(4, np.float32)
    for given in ({"a": ones}, {"b": ones}, {"a": ones, "b": ones}):
        found = leaves.of_tensors(table, {("leaf",): (4,)}, given)
        np.testing.assert_array_equal(found.read(("leaf",), (slice(0, 4),)), ones)
    with pytest.raises(UserError, match="differ in the file"):
        leaves.of_tensors(table, {("leaf",): (4,)}, {"a": ones, "b": 2 * ones})


def test_named_models_have_the_released_names_and_shapes():
    from osjax.parts.config import BUILT_IN, load

    named = load(BUILT_IN / "models.py")
    manifests = {
        "open_sora_v2": "full_mmdit_open_sora_v2",
        "high_compression": "full_mmdit_high_compression",
        "flux_dev": "full_mmdit_flux_dev",
        "dc_ae_f32t4c128": "full_dc_ae_f32t4c128",
        "hunyuan_vae": "full_hunyuan_vae",
        "flux_ae": "full_autoencoder_2d",
        "t5_xxl": "full_t5_v1_1_xxl_encoder",
        "clip_l": "full_clip_l_text",
    }
    for name, manifest in manifests.items():
        group = named[name]
        cfg = models.config(group.family, **group.config.to_dict())
        layout = weights.LAYOUTS.get(group.layout, weights.OPEN_SORA_V2)
        want = {n: tuple(shape) for n, shape in golden.read_json(manifest)["tensors"].items()}
        assert weights.torch_shapes(cfg, layout=layout) == want
