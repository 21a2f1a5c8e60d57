"""T5 and CLIP from folders in the Hugging Face layout, written here: files, sizes, what belongs to others."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from osjax import models, weights
from osjax.errors import UserError
from osjax.parallel import mesh
from osjax.parts import model_folder
from osjax.parts import text as text_encoders
from tests import golden, tokenizer_files

T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
CLIP = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def write_weights(folder, family, fields, also=None):
    cfg = models.config(family, **fields)
    tensors = {n: golden.generate(n, s) for n, s in weights.torch_shapes(cfg).items()}
    if family == "t5":
        del tensors["encoder.embed_tokens.weight"]  # as in the published files: one of the two names
    save_file({**tensors, **(also or {})}, folder / "model.safetensors")
    return models.build(cfg), weights.from_torch(cfg, tensors)


@pytest.fixture
def folders(tmp_path):
    """(t5 folder, its module and params, clip folder, its module and params)."""
    t5, clip = tmp_path / "t5", tmp_path / "clip"
    t5.mkdir(), clip.mkdir()
    t5_fields = {**T5, "vocab_size": tokenizer_files.write_t5(t5)}
    clip_fields = {**CLIP, "vocab_size": tokenizer_files.write_clip(clip)}
    others = {"model_type": "t5", "architectures": ["T5EncoderModel"], "feed_forward_proj": "gated-gelu"}
    (t5 / "config.json").write_text(json.dumps({**others, **t5_fields}))
    (clip / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": clip_fields}))
    vision = {"vision_model.x": np.ones(3, np.float32), "text_model.embeddings.position_ids": np.arange(77)}
    made = write_weights(t5, "t5", t5_fields, {"decoder.block.0.x": np.ones(2, np.float32)})
    return t5, made, clip, write_weights(clip, "clip_text", clip_fields, vision)


@pytest.mark.parametrize("offload", [False, True])
def test_prompts_become_the_states_and_the_pooled_vector_of_the_two_models(folders, offload):
    t5, (t5_module, t5_params), clip, (clip_module, clip_params) = folders
    pair = text_encoders.load(t5, clip, dtype="float32", offload=offload)
    prompts = ["a red circle", "two dogs run"]
    states, pooled = pair.encode_batch(prompts)
    assert states.shape == (2, 512, 16) and pooled.shape == (2, 16) and pair.max_length == 512
    t5_ids, clip_ids = pair._t5.tokenizer(prompts), pair._clip.tokenizer(prompts)
    np.testing.assert_allclose(states, t5_module.apply({"params": t5_params}, t5_ids), atol=1e-4)
    np.testing.assert_allclose(pooled, clip_module.apply({"params": clip_params}, clip_ids)[1], atol=1e-4)
    assert np.abs(states[0] - states[1]).max() > 0.1 and np.abs(pooled[0] - pooled[1]).max() > 0.1
    again = pair.encode_batch(prompts[:1])
    np.testing.assert_allclose(again[0], states[:1], atol=1e-4)


def test_split_over_the_devices_of_a_host_they_give_the_same(folders):
    t5, _, clip, _ = folders
    eight = mesh.make(data=1, fsdp=8)
    one, split = (text_encoders.load(t5, clip, dtype="float32", mesh=m) for m in (None, eight))
    prompts = ["a red circle", "two dogs run", ""]
    for got, want in zip(split.encode_batch(prompts), one.encode_batch(prompts), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=1e-4)
    kernel = split._t5_params._loaded()["blocks"]["mlp_in"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 8 == kernel.size


def test_half_precision_is_near_and_takes_half_the_memory(folders):
    t5, _, clip, _ = folders
    whole, half = (text_encoders.load(t5, clip, dtype=d) for d in ("float32", "bfloat16"))
    a, b = whole.encode_batch(["a red circle"])[0], half.encode_batch(["a red circle"])[0]
    assert 0 < np.abs(a - b).mean() / np.abs(a).mean() < 0.1
    kernel = half._t5_params._loaded()["blocks"]["mlp_in"]["kernel"]
    assert kernel.dtype.itemsize == 2


def test_folders_that_do_not_fit_say_what_to_do(folders, tmp_path):
    t5, _, clip, _ = folders
    with pytest.raises(UserError, match="is of model_type 'clip': give a folder of type t5"):
        text_encoders.load(clip, clip)
    with pytest.raises(UserError, match="config.json cannot be read"):
        text_encoders.load(tmp_path, clip)
    (t5 / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights: one of model.safetensors"):
        text_encoders.load(t5, clip)


def test_a_missing_tensor_is_named(folders):
    t5, (module, params), clip, _ = folders
    tensors = weights.to_torch(module.cfg, params)
    del tensors["encoder.final_layer_norm.weight"]
    save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, t5 / "model.safetensors")
    with pytest.raises(UserError, match="missing encoder.final_layer_norm.weight"):
        text_encoders.load(t5, clip).encode_batch(["a"])


def test_states_as_they_are_computed_lose_nothing_in_bfloat16(folders):
    t5, _, clip, _ = folders
    states, _ = text_encoders.load(t5, clip).encode_batch(["a red circle"])
    np.testing.assert_array_equal(states.astype("bfloat16").astype(np.float32), states)
    exact, _ = text_encoders.load(t5, clip, dtype="float32").encode_batch(["a red circle"])
    assert not np.array_equal(exact.astype("bfloat16").astype(np.float32), exact)


def test_a_fingerprint_tells_other_weights(folders):
    t5, _, clip, _ = folders
    before = model_folder.fingerprint(t5, clip)
    assert model_folder.fingerprint(t5, clip) == before
    data = bytearray((t5 / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (t5 / "model.safetensors").write_bytes(data)
    assert model_folder.fingerprint(t5, clip) != before


def test_a_prompt_that_is_too_long_for_one_of_the_two_says_so(folders):
    t5, _, clip, _ = folders
    pair = text_encoders.load(t5, clip)
    assert pair.cut("a red circle") == {}
    long, longer = pair.cut("red " * 100 + "end"), pair.cut("red " * 600 + "end")
    assert list(long) == ["CLIP's 77 tokens"] and list(longer) == ["T5's 512 tokens", "CLIP's 77 tokens"]
    assert all(words.endswith("red end") for words in longer.values())
