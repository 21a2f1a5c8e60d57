import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.conditioning import text
from osjax.data import caption
from osjax.errors import UserError
from tests import golden


@pytest.mark.parametrize("case", range(4))
def test_dropped_rows_equal_the_original(case):
    arrays, meta = golden.read("train_dropout_condition")
    p = meta["probabilities"][case]
    for kind in ("txt", "vec"):
        features, null, uniform = (arrays[k] for k in (f"in.{kind}", f"in.null_{kind}", f"p{case}.uniform_{kind}"))
        np.testing.assert_array_equal(text.replace_dropped(features, null, uniform, p), arrays[f"p{case}.{kind}"])
        assert not np.array_equal(text.replace_dropped(features, null, uniform, 1 - p), arrays[f"p{case}.{kind}"])


@pytest.mark.parametrize("name", ["train_inputs_causal", "train_inputs_uncausal_patch1"])
def test_text_of_a_training_batch_equals_the_original(name):
    arrays, meta = golden.read(name)
    drop = meta["config"]["dropout_ratio"]
    null = text.fit_null_text(arrays["in.null_txt"], arrays["in.txt"].shape[1])
    txt = text.replace_dropped(arrays["in.txt"], null, arrays["draw.uniform_txt"], drop["t5"])
    vec = text.replace_dropped(arrays["in.vec"], arrays["in.null_vec"], arrays["draw.uniform_vec"], drop["clip"])
    np.testing.assert_array_equal(txt, arrays["model_input.txt"])
    np.testing.assert_array_equal(vec, arrays["model_input.y_vec"])
    assert not np.array_equal(arrays["in.vec"], arrays["model_input.y_vec"])


def test_text_states_and_pooled_vector_are_dropped_independently():
    ones, zeros = jnp.ones((4000, 2, 1)), jnp.zeros((1, 1, 1))
    txt, vec = text.drop_text(jax.random.key(0), ones, ones[:, 0], zeros, zeros[0], t5=0.3, clip=0.6)
    txt_gone, vec_gone = np.asarray(txt[:, 0, 0] == 0), np.asarray(vec[:, 0] == 0)
    assert abs(txt_gone.mean() - 0.3) < 0.03 and abs(vec_gone.mean() - 0.6) < 0.03
    assert abs((txt_gone & vec_gone).mean() - 0.18) < 0.03
    np.testing.assert_array_equal(txt[:, 0], txt[:, 1])


def test_short_null_text_repeats_its_last_token_and_long_one_is_refused():
    null = jnp.arange(6.0).reshape(1, 3, 2)
    assert text.fit_null_text(null, 5)[0, :, 0].tolist() == [0, 2, 4, 4, 4]
    with pytest.raises(UserError, match="shorten"):
        text.fit_null_text(null, 2)


def test_prompt_suffixes_equal_the_original():
    cases = golden.read_json("sampling_functions")["text"]
    for case in cases["add_fps_info"]:
        assert caption.prompt(case["in"], "original", case["fps"]) == case["out"]
    for case in cases["add_motion_score"]:
        assert caption.prompt(case["in"], "original", None, case["score"]) == case["out"]
    assert caption.prompt("a cat", "original", 24) != caption.prompt("a cat", "original", 16)


def test_encoder_tells_words_orders_and_the_empty_prompt_apart():
    encoder = text.TextEncoder(width=32, max_length=6)
    txt, vec = encoder.encode_batch(["A red ball", "a red  ball", "ball red a", "a blue ball", ""])
    assert txt.shape == (5, 6, 32) and vec.shape == (5, 32) and txt.dtype == vec.dtype == np.float32
    np.testing.assert_array_equal(txt[0], txt[1])
    assert not np.array_equal(txt[0], txt[2])
    np.testing.assert_allclose(vec[0], vec[2], atol=1e-6)  # the pooled vector ignores order
    assert np.abs(vec[0] - vec[3]).max() > 0.05
    assert np.abs(vec[0] - vec[4]).max() > 0.05
    np.testing.assert_array_equal(txt[0, 3:], txt[4, 3:])  # both are padding there
    np.testing.assert_array_equal(encoder.encode("a b c d e f g h")[0], encoder.encode("a b c d e f")[0])


def test_encoder_gives_the_same_numbers_in_another_process():
    code = (
        "from osjax.conditioning.text import TextEncoder\n"
        "print(repr(TextEncoder(8, 2).encode('red ball')[0].tobytes().hex()))"
    )
    env = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(p for p in sys.path if p) + ":.", "JAX_PLATFORMS": "cpu"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    here = text.TextEncoder(8, 2).encode("red ball")[0].tobytes().hex()
    assert other.stdout.strip() == repr(here)
    assert text.TextEncoder(8, 2).encode("blue ball")[0].tobytes().hex() != here


def test_a_bad_encoder_size_is_a_user_error():
    with pytest.raises(UserError, match="even width"):
        text.TextEncoder(width=5)


def test_the_built_in_encoder_says_which_words_it_leaves_out():
    encoder = text.TextEncoder(16, max_length=4)
    assert encoder.cut("A red, ball") == encoder.cut("") == {}
    assert encoder.cut("A red, ball rolls  away.") == {"the text encoder's 4 words": "rolls  away."}
    same, other = encoder.encode("A red, ball rolls away"), encoder.encode("A red, ball")
    assert np.array_equal(same[0], other[0]) and not np.array_equal(same[0], encoder.encode("A red, bus")[0])
