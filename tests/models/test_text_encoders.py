"""T5 and CLIP against the arrays of the original, and what it takes to be called as it calls them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from osjax.models import t5
from tests import golden

pytestmark = pytest.mark.optimised


def loaded(family, name, manifest):
    """(module, params, arrays, settings) of a golden."""
    arrays, settings = golden.read(name)
    cfg = models.config(family, **settings["config"])
    entries = golden.read_json(manifest)["state_dict"]
    names = {n: n for n in entries} | {n: e["tied_to"] for n, e in entries.items() if "tied_to" in e}
    tensors = {n: golden.generate(source, tuple(entries[n]["shape"])) for n, source in names.items()}
    return models.build(cfg), weights.from_torch(cfg, tensors), arrays, settings


@pytest.fixture(scope="module")
def t5_golden():
    return loaded("t5", "text_t5", "manifest_t5_tiny")


@pytest.fixture(scope="module")
def clip_golden():
    return loaded("clip_text", "text_clip", "manifest_clip_tiny")


def test_t5_hidden_states_match_the_original(t5_golden):
    module, params, arrays, settings = t5_golden
    got = module.apply({"params": params}, arrays["in.input_ids"])
    assert golden.relative_error(got, arrays["last_hidden_state"]) < settings["tolerance_relative"]
    shuffled = np.roll(arrays["in.input_ids"], 1, axis=1)
    assert golden.relative_error(module.apply({"params": params}, shuffled), arrays["last_hidden_state"]) > 0.1


def test_one_t5_block_and_its_position_bias_match_the_original(t5_golden):
    module, params, arrays, settings = t5_golden
    length = arrays["position_bias_24"].shape[-1]
    bias = module.position_bias(jnp.asarray(params["relative_bias"]), length)[None]
    assert golden.relative_error(bias, arrays["position_bias_24"]) < 1e-6
    one = models.build(models.config("t5", **{**settings["config"], "num_layers": 1}))
    first = {**params, "blocks": jax.tree.map(lambda x: x[:1], params["blocks"])}
    first["final_norm"] = {"scale": np.ones_like(params["final_norm"]["scale"])}
    x = arrays["after_block0"]
    normed = x / np.sqrt(np.mean(x.astype(np.float64) ** 2, -1, keepdims=True) + 1e-6)
    got = one.apply({"params": first}, arrays["in.input_ids"])
    assert golden.relative_error(got, normed) < settings["tolerance_relative"]


def test_t5_looks_back_and_ahead_with_other_buckets():
    found = t5.buckets(300, 32, 128)
    assert found[150, 149] == 1 and found[150, 151] == 17 and found[150, 150] == 0
    assert found[0, 299] == 31 and found[299, 0] == 15 and len(np.unique(found)) == 31  # 16, "0 ahead", never occurs


def test_clip_states_and_pooled_vector_match_the_original(clip_golden):
    module, params, arrays, settings = clip_golden
    states, pooled = module.apply({"params": params}, arrays["in.input_ids"])
    assert golden.relative_error(states, arrays["last_hidden_state"]) < settings["tolerance_relative"]
    assert golden.relative_error(pooled, arrays["pooler_output"]) < settings["tolerance_relative"]
    rows = np.arange(3)
    assert np.array_equal(pooled, np.asarray(states)[rows, settings["pooled_position"]])
    assert golden.relative_error(np.asarray(states)[:, -2], arrays["pooler_output"]) > 0.1


def test_clip_pools_at_a_stated_end_token_too(clip_golden):
    module, params, arrays, settings = clip_golden
    ids = arrays["in.input_ids"]
    stated = models.config("clip_text", **{**settings["config"], "eos_token_id": int(ids.max())})
    got = models.build(stated).apply({"params": params}, ids)[1]
    assert np.array_equal(got, module.apply({"params": params}, ids)[1])


def test_clip_sees_only_tokens_before(clip_golden):
    module, params, arrays, _ = clip_golden
    ids = np.array(arrays["in.input_ids"])
    states = module.apply({"params": params}, ids)[0]
    ids[:, 40] = 7
    changed = module.apply({"params": params}, ids)[0]
    assert np.array_equal(states[:, :40], changed[:, :40]) and not np.array_equal(states[:, 41:], changed[:, 41:])


@pytest.mark.parametrize("family", ["t5", "clip_text"])
def test_bfloat16_activations_stay_near_float32(family, t5_golden, clip_golden):
    module, params, arrays, settings = t5_golden if family == "t5" else clip_golden
    half = models.build(models.config(family, **settings["config"], dtype="bfloat16"))
    whole = jax.tree.leaves(module.apply({"params": params}, arrays["in.input_ids"]))[0]
    got = jax.tree.leaves(half.apply({"params": params}, arrays["in.input_ids"]))[0]
    off = np.abs(np.asarray(got, np.float32) - whole).mean() / np.abs(whole).mean()
    assert got.dtype == jnp.bfloat16 and 1e-4 < off < 0.15  # a mean: T5's unscaled scores make single values jump


@pytest.mark.parametrize(
    ("family", "field", "value"), [("t5", "feed_forward_proj", "relu"), ("clip_text", "hidden_act", "gelu")]
)
def test_relatives_of_these_models_are_refused(family, field, value):
    with pytest.raises(UserError, match="is of another"):
        models.config(family, **{field: value})


def test_more_tokens_than_clip_has_places_are_refused(clip_golden):
    module, params, *_ = clip_golden
    with pytest.raises(UserError, match="78 tokens are more than the 77 positions"):
        module.apply({"params": params}, np.zeros((1, 78), np.int32))


@pytest.mark.parametrize(("family", "full"), [("t5", "full_t5_v1_1_xxl_encoder"), ("clip_text", "full_clip_l_text")])
def test_full_size_names_and_shapes_are_those_of_the_original(family, full):
    manifest = golden.read_json(full)
    cfg = models.config(family, **manifest["config"])
    assert weights.torch_shapes(cfg) == {n: tuple(s) for n, s in manifest["tensors"].items()}
    assert cfg == models.config(family)  # the defaults are the full size
    sizes = [leaf.size for leaf in jax.tree.leaves(models.abstract_params(cfg))]
    assert sum(sizes) == manifest["parameters"]


@pytest.mark.parametrize("family", ["t5", "clip_text"])
def test_export_gives_back_the_bytes_of_the_file(family, t5_golden, clip_golden):
    module, params, _, settings = t5_golden if family == "t5" else clip_golden
    tensors = weights.to_torch(module.cfg, params)
    entries = golden.read_json(settings["weights_manifest"].removesuffix(".json"))["state_dict"]
    assert tensors.keys() == entries.keys()
    for name, entry in entries.items():
        want = golden.generate(entry.get("tied_to", name), tuple(entry["shape"]))
        assert tensors[name].tobytes() == want.tobytes()


def test_a_t5_file_may_hold_either_name_of_its_embedding_but_not_two_tables(t5_golden):
    module, params, _, _ = t5_golden
    tensors = weights.to_torch(module.cfg, params)
    for absent in ("shared.weight", "encoder.embed_tokens.weight"):
        some = {n: t for n, t in tensors.items() if n != absent}
        assert np.array_equal(weights.from_torch(module.cfg, some)["embedding"], params["embedding"])
    with pytest.raises(UserError, match="are one tensor of this model, but differ"):
        weights.from_torch(module.cfg, {**tensors, "shared.weight": tensors["shared.weight"] + 1})
    with pytest.raises(UserError, match="missing shared.weight"):
        weights.from_torch(module.cfg, {n: t for n, t in tensors.items() if "block" in n})
