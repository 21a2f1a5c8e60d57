"""Tokenizers of T5 and CLIP from the user's local folders, with the original's padding and truncation.

Every prompt becomes `max_length` ids: too long ones are cut before their end token, short ones are filled up with T5's
padding or CLIP's end token. No attention mask exists; the models attend to the filling, as the original's do. CLIP's
prompts are mended by ftfy first, as its published tokenizer does: quotes are made straight, ligatures taken apart.
Source: Open-Sora opensora/models/text/conditioner.py; CLIPTokenizer of transformers 4, the slow one.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
from tokenizers import Tokenizer

from osjax.data import tokenizer_process
from osjax.data.tokenizer_process import CLIP_END, clip_from_vocabulary, from_json
from osjax.data.workers import Lost, Workers
from osjax.errors import UserError

T5_LENGTH, CLIP_LENGTH = 512, 77
LARGEST = 2**28  # bytes of a tokenizer.json
TRIAL_S = 30.0  # seconds that a file of unknown origin has to show that it is one
TEXTS_S = 30.0  # and that it has for the texts of a batch
MEMORY_GB = 4.0  # address space of its process
T5_PAD = "<pad>"


class PromptTokenizer:
    """Makes ids of one length from prompts, in a process of its own. pad_id: what fills up short ones.

    file: what the tokenizer is read from, for messages. load: reads it, there; picklable. max_length: ids of a prompt.
    pad_token: its word for filling. mend: from a prompt to the text that is read. UserError where it has no such word,
    does not read, or takes too long for a few texts.
    """

    def __init__(
        self,
        file: Path,
        load: Callable[[], Tokenizer],
        max_length: int,
        pad_token: str,
        mend: Callable[[str], str] = str,
    ):
        self.max_length, self._file, self._mend = max_length, file, mend
        start = functools.partial(tokenizer_process.begin, load, max_length, pad_token)
        self._process = Workers(1, start, MEMORY_GB, TRIAL_S)
        self.pad_id: int = self._asked(tokenizer_process.token_id, pad_token)

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        """Ids of B prompts, int32 (B, max_length). UserError where the tokenizer fails on one, or hangs."""
        return self._asked(tokenizer_process.ids, [*map(self._mend, prompts)])

    def cut(self, prompt: str) -> str:
        """The words of `prompt` that its ids leave out, from the first that is not whole; empty where all fit.

        As they are read: CLIP's are mended.
        """
        prompt = self._mend(prompt)
        end = self._asked(tokenizer_process.end_of_ids, prompt)
        if end is None:
            return ""
        while 0 < end < len(prompt) and not (prompt[end].isspace() or prompt[end - 1].isspace()):
            end -= 1
        return prompt[end:].strip()

    def _asked(self, function: Callable[..., Any], argument: Any) -> Any:
        try:
            return self._process.call(function, argument, timeout_s=TEXTS_S)
        except Lost as error:
            raise UserError(f"{self._file} is not a tokenizer (it {error}): download it again") from error
        except (UserError, MemoryError) as error:
            if "give the folder" in str(error) or str(self._file) in str(error):
                raise
            raise UserError(f"{self._file} is not a tokenizer ({error}): download it again") from error


def t5(folder: Path | str, max_length: int = T5_LENGTH) -> PromptTokenizer:
    """The tokenizer of a T5 `folder` in the Hugging Face layout. max_length: ids. UserError where it cannot be read."""
    folder = Path(folder)
    if not (folder / "tokenizer.json").is_file() and (folder / "spiece.model").is_file():
        raise UserError(
            f"{folder} holds spiece.model but no tokenizer.json: make it once where transformers is installed, with "
            'AutoTokenizer.from_pretrained("FOLDER").save_pretrained("FOLDER")'
        )
    return _of_json(folder, max_length, T5_PAD)


def clip(folder: Path | str, max_length: int = CLIP_LENGTH) -> PromptTokenizer:
    """The tokenizer of a CLIP `folder`: of its tokenizer.json, or of vocab.json with merges.txt.

    max_length: ids of a prompt. UserError where neither reads.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file() or not (folder / "vocab.json").is_file():
        return _of_json(folder, max_length, CLIP_END, _mended)
    load = functools.partial(clip_from_vocabulary, folder)
    return PromptTokenizer(folder, load, max_length, CLIP_END, _mended)


def _mended(prompt: str) -> str:
    # Python's lower case, which knows the sigma at the end of a word, and not that of `tokenizers`.
    return ftfy.fix_text(prompt).lower()


def _of_json(folder: Path, max_length: int, pad_token: str, mend: Callable[[str], str] = str) -> PromptTokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no tokenizer.json: give the folder of a text encoder")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is not a tokenizer ({path.stat().st_size} bytes): download it again")
    return PromptTokenizer(path, functools.partial(from_json, path.absolute()), max_length, pad_token, mend)
