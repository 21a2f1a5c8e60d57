"""Weight-decomposed adapters: rows get the lengths that the file says, whatever parts and windows they are read in."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from osjax import weights
from osjax.errors import UserError
from osjax.parts import lora as training
from osjax.weights import lora_file
from osjax.weights.leaves import of_params
from osjax.weights.lora_merge import merged
from osjax.weights.rules import whole
from tests.training import tiny

Q, SPLIT = "double_blocks.0.img_attn.q_proj", "single_blocks.0.linear2"  # linear2 is two kernels of ours, by its inputs
QKV, MODULATION, IN = "single_blocks.1.linear1", "double_blocks.0.txt_mod.lin", "txt_in"
LAYERS = {weights.OPEN_SORA_V2: (Q, SPLIT, MODULATION, IN), weights.FLUX: (QKV, SPLIT, IN)}
NAMES = {
    "peft": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight", "{}.lora_magnitude_vector"),
    "kohya": ("diffusion_model.{}.lora_down.weight", "diffusion_model.{}.lora_up.weight", "{}.dora_scale"),
}


def dora(path, layers, shapes, dialect="peft", rank=2, plain=()):
    """A file of such adapters, and {layer: (A, B, m)}; layers in `plain` have no magnitudes."""
    rng, tensors, out = np.random.default_rng(0), {}, {}
    for name in layers:
        rows, columns = shapes[f"{name}.weight"]
        a, b = rng.standard_normal((rank, columns)).astype("f"), rng.standard_normal((rows, rank)).astype("f")
        m = rng.uniform(0.5, 2, rows).astype("f")
        of_a, of_b, of_m = NAMES[dialect]
        tensors |= {of_a.format(name): a, of_b.format(name): b}
        if name not in plain:
            prefix = of_a.split("{}")[0]
            tensors[prefix + of_m.format(name)] = m if dialect == "peft" else m[:, None]
        out[name] = a, b, None if name in plain else m
    save_file(tensors, path)
    return path, out


def wanted(base, parts):
    """The matrices that the paper's formula gives, in float64."""
    out = dict(base)
    for name, (a, b, m) in parts.items():
        w = base[f"{name}.weight"].astype(np.float64) + b.astype(np.float64) @ a
        out[f"{name}.weight"] = w if m is None else w * (m / np.linalg.norm(w, axis=1))[:, None]
    return out


@pytest.mark.parametrize("dialect", NAMES)
@pytest.mark.parametrize("layout", LAYERS, ids=["open_sora_v2", "flux"])
def test_rows_of_every_kind_of_layer_get_the_lengths_that_the_file_says(tmp_path, layout, dialect):
    base = weights.to_torch(tiny.CONFIG, tiny.host_params(), layout=layout)
    shapes = {name: x.shape for name, x in base.items()}
    path, parts = dora(tmp_path / "d.safetensors", LAYERS[layout], shapes, dialect, plain=(IN,))
    given = lora_file.read(path, tiny.CONFIG, layout)
    after = merged(of_params(tiny.host_params()), given).tree()
    got, want = weights.to_torch(tiny.CONFIG, after, layout=layout), wanted(base, parts)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, atol=2e-6)
    for name in parts:
        without = base[f"{name}.weight"] + parts[name][1] @ parts[name][0]  # the control: the same pair, no lengths
        assert (np.abs(got[f"{name}.weight"] - without).max() > 0.1) == (name != IN)


def test_any_window_of_a_kernel_is_the_same_whatever_was_read_before(tmp_path):
    base = of_params(tiny.host_params())
    shapes = weights.torch_shapes(tiny.CONFIG)
    path, _ = dora(tmp_path / "d.safetensors", LAYERS[weights.OPEN_SORA_V2], shapes)
    given = lora_file.read(path, tiny.CONFIG)
    whole_first = merged(base, given)
    everything = {path: whole_first.read(path, whole(shape)) for path, shape in base.shapes.items()}
    rng = np.random.default_rng(1)
    for leaf, shape in base.shapes.items():
        window = tuple(slice(*map(int, sorted(rng.choice(n + 1, 2, replace=False)))) for n in shape)
        np.testing.assert_allclose(merged(base, given).read(leaf, window), everything[leaf][window], atol=1e-6)


def test_strength_goes_from_the_model_itself_to_the_whole_change(tmp_path):
    base = of_params(tiny.host_params())
    path, _ = dora(tmp_path / "d.safetensors", (Q, SPLIT), weights.torch_shapes(tiny.CONFIG))
    given = lora_file.read(path, tiny.CONFIG)
    none, half, full = (merged(base, given, strength).tree() for strength in (0.0, 0.5, 1.0))
    assert tiny.same(none, tiny.host_params())
    for leaf, shape in base.shapes.items():
        values = [of_params(tree).read(leaf, whole(shape)) for tree in (none, half, full)]
        np.testing.assert_allclose(values[1], (values[0] + values[2]) / 2, atol=1e-6)
    kernel = "double_blocks", "img_attn", "qkv", "kernel"
    moved = of_params(full).read(kernel, whole(base.shapes[kernel])) - base.read(kernel, whole(base.shapes[kernel]))
    assert np.abs(moved).max() > 0.1


def test_what_only_a_pair_can_do_is_refused_with_what_to_do(tmp_path):
    path, _ = dora(tmp_path / "d.safetensors", (Q,), weights.torch_shapes(tiny.CONFIG))
    cfg = lora_file.read(path, tiny.CONFIG).cfg
    with pytest.raises(UserError, match="is DoRA, .* merges it"):
        training.start(str(path), cfg, tiny.CONFIG)
