"""What runs in the process of a tokenizer: reads its file, tries it on a few texts, makes ids.

`tokenizers` is native code with regular expressions of the file's choice: a hostile one panics, or takes minutes for a
sentence. What happens here happens to this process alone.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from osjax import json_file
from osjax.errors import UserError

TEXTS = (
    *("", "a red bus, at night", "ünïcödé 北京 ☃", "a" * 2000 + "!", " " * 2000 + "a", "1" * 2000 + "x", "\n\t" * 500),
    *("aB" * 1000 + "!", "-" * 2000 + "a", "é" * 1000 + "!", "the cat " * 300 + "\x00"),
    *("<pad></s><|endoftext|>", "x" * 77),
)
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
# Contractions, runs of letters, single digits, runs of anything else.
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def begin(load: Callable[[], Tokenizer], max_length: int, pad_token: str) -> Tokenizer:
    """The tokenizer that `load` gives, which made ids of all TEXTS, twice the same.

    max_length: to which it cuts and fills up, with pad_token. UserError where it fails, or has no such token.
    """
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # where panics are told once more
    with _no_panic():
        tokenizer = load()
        tokenizer.no_padding()
        for text in TEXTS:
            once, twice = (tokenizer.encode(text).ids for _ in range(2))
            if once != twice:
                raise UserError("its ids differ from call to call")
        pad_id = tokenizer.token_to_id(pad_token)
        if pad_id is None:
            raise UserError(f"the tokenizer has no {pad_token} token: give the folder of the right text encoder")
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token, length=max_length)
    return tokenizer


def ids(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Ids of B texts, int32 (B, max_length). tokenizer: of `begin`. UserError where it fails on one."""
    with _no_panic():
        return np.array([encoding.ids for encoding in tokenizer.encode_batch(list(texts))], np.int32)


def token_id(tokenizer: Tokenizer, token: str) -> int | None:
    """The number of a `token`, None where the `tokenizer` has none."""
    return tokenizer.token_to_id(token)


def end_of_ids(tokenizer: Tokenizer, text: str) -> int | None:
    """How many characters of `text` its ids tell, None where they tell all. tokenizer: of `begin`."""
    with _no_panic():
        encoding = tokenizer.encode(text)
    if not encoding.overflowing:
        return None
    return max((stop for _, stop in encoding.offsets), default=0)


@contextlib.contextmanager
def _no_panic() -> Iterator[None]:
    """A block in which a panic of the native code, no Exception to Python, or its bare Exception is a UserError."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        raise UserError(f"it fails on its file or on a text: {str(error)[:120]}") from error


def from_json(path: Path) -> Tokenizer:
    """The tokenizer of the tokenizer.json at `path`."""
    return Tokenizer.from_file(str(path))


def clip_from_vocabulary(folder: Path) -> Tokenizer:
    """Byte-level BPE over lower-cased words, each closed by </w>, between a start and an end token.

    folder: with vocab.json and merges.txt. UserError where they do not read.
    """
    try:
        vocabulary = json_file.parse((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        bpe = models.BPE(
            vocabulary, merges, unk_token=CLIP_END, continuing_subword_prefix="", end_of_word_suffix="</w>"
        )
        start, end = vocabulary[CLIP_START], vocabulary[CLIP_END]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} holds no readable vocab.json and merges.txt ({error}): download the CLIP folder again"
        ) from error
    tokenizer = Tokenizer(bpe)
    tokenizer.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in (CLIP_START, CLIP_END)])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    ends = (CLIP_END, end), (CLIP_START, start)
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)
    return tokenizer
