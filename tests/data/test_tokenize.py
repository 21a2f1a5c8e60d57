"""Tokenizers from real files, trained here: lengths, padding, truncation, and folders that do not fit."""

import json

import numpy as np
import pytest

from osjax.data import tokenize, tokenizer_process
from osjax.errors import UserError
from tests import tokenizer_files


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    tokenizer_files.write_t5(folder)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    tokenizer_files.write_clip(folder)
    return folder


def test_t5_prompts_are_filled_up_with_zero_and_cut_before_their_end_token(t5_folder):
    ids = tokenize.t5(t5_folder)(["a red circle", "", "red " * 600])
    assert ids.shape == (3, 512) and ids.dtype == np.int32
    end = int(np.argmax(ids[0] == 1))
    assert 2 < end < 20 and not ids[0, end + 1 :].any() and ids[0, :end].all()
    assert list(ids[1, :2]) == [1, 0]
    assert ids[2, -1] == 1 and 0 not in ids[2]


def test_clip_prompts_are_filled_up_with_their_end_token(clip_folder):
    ids = tokenize.clip(clip_folder)(["Red  DOGS's 24", "x" * 200])
    vocabulary = json.loads((clip_folder / "vocab.json").read_text())
    end = vocabulary["<|endoftext|>"]
    want = ["<|startoftext|>", "red</w>", "dogs</w>", "'", "s</w>", "2</w>", "4</w>"]
    assert [int(i) for i in ids[0, :7]] == [vocabulary[w] for w in want]
    assert ids.shape == (2, 77) and (ids[0, 7:] == end).all()
    assert ids[1, -1] == end and (ids[1, 1:-1] != end).all()


def test_clip_s_prompts_are_mended_and_its_end_token_is_read_as_one(clip_folder):
    read = tokenize.clip(clip_folder)
    assert np.array_equal(read(["“red” ﬁ it’s"]), read(['"red" fi it\'s']))
    assert not np.array_equal(read(["red fi its"]), read(['"red" fi it\'s']))
    end = read.pad_id
    assert list(read(["red <|endoftext|> red"])[0, 1:5]) == [*[red := read(["red"])[0, 1], end, red], end]
    assert read.cut("x" * 80 + " “red”").endswith('"red"')


def test_a_saved_tokenizer_json_reads_the_same_as_the_vocabulary(clip_folder, tmp_path):
    prompts = ["red dogs, it's 3 cafés", "a"]
    first = tokenize.clip(clip_folder)
    tokenizer_process.clip_from_vocabulary(clip_folder).save(str(tmp_path / "tokenizer.json"))
    assert np.array_equal(tokenize.clip(tmp_path)(prompts), first(prompts))


def test_folders_that_do_not_fit_say_what_to_do(t5_folder, clip_folder, tmp_path):
    with pytest.raises(UserError, match="holds no tokenizer.json"):
        tokenize.t5(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"\n")
    with pytest.raises(UserError, match="make it once where transformers is installed"):
        tokenize.t5(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="is not a tokenizer"):
        tokenize.t5(tmp_path)
    with pytest.raises(UserError, match="no <.endoftext.> token"):
        tokenize.clip(t5_folder)
    (tmp_path / "vocab.json").write_text("[1]")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no readable vocab.json and merges.txt"):
        tokenize.clip(tmp_path)


def test_the_words_that_do_not_fit_are_told_from_the_first_that_is_not_whole(t5_folder, clip_folder):
    for tokenizer in (tokenize.t5(t5_folder, 12), tokenize.clip(clip_folder, 12)):
        prompt = "red dogs run " * 9 + "to the bluest café"
        rest = tokenizer.cut(prompt)
        assert rest and prompt.endswith(rest) and prompt[-len(rest) - 1] == " "
        kept = prompt[: -len(rest)]
        assert tokenizer.cut(kept) == "" == tokenizer.cut("") == tokenizer.cut("red dogs")
        word = rest.split()[0]
        assert tokenizer.cut(f"{kept} {word}")  # one word more is too long
    assert tokenize.clip(clip_folder).cut("x" * 200) == "x" * 200  # one word that is not whole
