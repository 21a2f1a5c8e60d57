"""Tokenizers of T5 and CLIP from the user's local folders, with the original's padding and truncation.

Every prompt becomes `max_length` ids: too long ones are cut before their end token, short ones are filled up with T5's
padding or CLIP's end token. No attention mask exists; the models attend to the filling, as the original's do. CLIP's
prompts are mended by ftfy first, as its published tokenizer does: quotes are made straight, ligatures taken apart.
Source: Open-Sora opensora/models/text/conditioner.py; CLIPTokenizer of transformers 4, the slow one.
"""

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import ftfy
import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from osjax import json_file
from osjax.data import tokenizer_trial
from osjax.errors import UserError

T5_LENGTH, CLIP_LENGTH = 512, 77
LARGEST = 2**28  # bytes of a tokenizer.json
TRIAL_S = 30  # seconds that a file of unknown origin has to show that it is one
T5_PAD = "<pad>"
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
# Contractions, runs of letters, single digits, runs of anything else.
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class PromptTokenizer:
    """Makes ids of one length from prompts. pad_id: what fills up short ones.

    tokenizer: of one text, whose truncation and padding are set here. max_length: ids of a prompt. pad_token: its
    word for filling; UserError where it has none. mend: from a prompt to the text that is read.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, pad_token: str, mend: Callable[[str], str] = str):
        self.max_length, self.pad_id = max_length, tokenizer.token_to_id(pad_token)
        if self.pad_id is None:
            raise UserError(f"the tokenizer has no {pad_token} token: give the folder of the right text encoder")
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding(pad_id=self.pad_id, pad_token=pad_token, length=max_length)
        self._tokenizer, self._mend = tokenizer, mend

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        """Ids of B prompts, int32 (B, max_length). UserError where the tokenizer itself fails on one."""
        with _no_panic():
            return np.array([e.ids for e in self._tokenizer.encode_batch([*map(self._mend, prompts)])], np.int32)

    def cut(self, prompt: str) -> str:
        """The words of `prompt` that its ids leave out, from the first that is not whole; empty where all fit.

        As they are read: CLIP's are mended.
        """
        prompt = self._mend(prompt)
        with _no_panic():
            encoding = self._tokenizer.encode(prompt)
        if not encoding.overflowing:
            return ""
        end = max((stop for _, stop in encoding.offsets), default=0)
        while 0 < end < len(prompt) and not (prompt[end].isspace() or prompt[end - 1].isspace()):
            end -= 1
        return prompt[end:].strip()


def t5(folder: Path | str, max_length: int = T5_LENGTH) -> PromptTokenizer:
    """The tokenizer of a T5 `folder` in the Hugging Face layout. max_length: ids. UserError where it cannot be read."""
    folder = Path(folder)
    if not (folder / "tokenizer.json").is_file() and (folder / "spiece.model").is_file():
        raise UserError(
            f"{folder} holds spiece.model but no tokenizer.json: make it once where transformers is installed, with "
            'AutoTokenizer.from_pretrained("FOLDER").save_pretrained("FOLDER")'
        )
    return PromptTokenizer(_read(folder), max_length, T5_PAD)


def clip(folder: Path | str, max_length: int = CLIP_LENGTH) -> PromptTokenizer:
    """The tokenizer of a CLIP `folder`: of its tokenizer.json, or of vocab.json with merges.txt.

    max_length: ids of a prompt. UserError where neither reads.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file() or not (folder / "vocab.json").is_file():
        return PromptTokenizer(_read(folder), max_length, CLIP_END, _mended)
    return PromptTokenizer(_clip_from_vocabulary(folder), max_length, CLIP_END, _mended)


def _mended(prompt: str) -> str:
    # Python's lower case, which knows the sigma at the end of a word, and not that of `tokenizers`.
    return ftfy.fix_text(prompt).lower()


def _read(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no tokenizer.json: give the folder of a text encoder")
    try:
        about = path.stat()
        _try(str(path), about.st_size, about.st_mtime_ns)
        with _no_panic():
            return Tokenizer.from_file(str(path))
    except UserError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path} is not a tokenizer ({str(error)[:120]}): download it again") from error


@functools.lru_cache
def _try(path: str, size: int, changed_ns: int) -> None:
    """UserError where a process of its own fails on the tokenizer at `path`, or takes too long.

    size, changed_ns: of the file, which is tried once.
    """
    if size > LARGEST:
        raise UserError(f"{path} is not a tokenizer ({size} bytes): download it again")
    command = [sys.executable, "-I", tokenizer_trial.__file__, path]
    quiet = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        tried = subprocess.run(command, capture_output=True, timeout=TRIAL_S, env=quiet, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{path} takes more than {TRIAL_S} s for a few texts: download it again") from error
    if tried.returncode:
        last = (tried.stderr.decode(errors="replace").strip().splitlines() or [f"status {tried.returncode}"])[-1]
        raise UserError(f"{path} is not a tokenizer ({last[:120]}): download it again")


@contextlib.contextmanager
def _no_panic() -> Iterator[None]:
    """A block in which a panic of the native code, no Exception to Python, is a UserError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise UserError(f"the tokenizer fails on a text ({str(error)[:120]}): download it again") from error


def _clip_from_vocabulary(folder: Path) -> Tokenizer:
    """Byte-level BPE over lower-cased words, each closed by </w>, between a start and an end token."""
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
