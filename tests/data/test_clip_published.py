"""CLIP's ids against transformers' own slow tokenizer, over the real vocabulary that the wheel of open_clip ships.

Skipped where the two are not installed: `pip install 'transformers<5' && pip install --no-deps open_clip_torch`.
"""

import functools
import gzip
import itertools
import json
from importlib import metadata

import numpy as np
import pytest

from osjax.data import tokenize, tokenizer_process

transformers = pytest.importorskip("transformers")

HARD = [
    "“quotes” ‘single’ it’s a dog’s life — really… yes",
    "ﬁne ligature ½ ² ① ﬂow",
    "a literal <|endoftext|> in the middle <|STARTOFTEXT|>",
    "Ὀδυσσεύς ΣΟΦΟΣ café CAFÉ cafe\u0301",
    "日本語の看板 and 한국어, русский, العربية",
    "👩‍👩‍👧‍👦 family 🇫🇷 flag, ❤️",
    "tabs\tand\nlines\r\n  and   spaces\u00a0hard",
    "&lt;b&gt; &amp; 5 < 6 &quot;",
    "schÃ¶n mojibake donâ€™t",
    "1920x1080 24.5fps, 4 motion score.",
    "I'LL don't we've they're I'd I'm",
    "ｆｕｌｌ ｗｉｄｔｈ ％",
    "\x1b[31mred\x1b[0m bell\x07 soft\u00adhyphen zero\u200bwidth",
    "snake_case #hash @at $5.00 C++ a/b\\c",
    "İstanbul ẞ straße ŉ ǆ",
    "!!!???... ---___ (((",
    "",
    "   ",
    "word " * 100,
    "x" * 300,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """vocab.json and merges.txt as the published folder has them."""
    try:
        files = metadata.files("open_clip_torch")
    except metadata.PackageNotFoundError:
        pytest.skip("open_clip_torch is not installed")
    path = next(file for file in files if file.name == "bpe_simple_vocab_16e6.txt.gz").locate()
    merges = gzip.open(path, "rt", encoding="utf-8").read().split("\n")[1 : 49152 - 256 - 2 + 1]
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [*map(chr, shown), *(chr(256 + n) for n in range(256 - len(shown)))]
    words = [*letters, *(x + "</w>" for x in letters), *("".join(m.split()) for m in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges), encoding="utf-8")
    return folder


def test_two_hundred_prompts_have_the_ids_of_the_published_tokenizer(folder):
    if not hasattr(transformers.CLIPTokenizer, "bpe"):
        pytest.skip("transformers 5 has no slow tokenizer")
    published = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    pairs = (f"{a[:80]} {b[:80]}" for a, b in itertools.permutations(HARD, 2))
    prompts = [*HARD, *itertools.islice(pairs, 0, None, 2)][:200]
    assert len(prompts) == 200
    want = published(prompts, padding="max_length", truncation=True, max_length=77)["input_ids"]
    got = tokenize.clip(folder)(prompts)
    wrong = [p for p, a, b in zip(prompts, got, want, strict=True) if list(a) != b]
    assert wrong == []
    load = functools.partial(tokenizer_process.clip_from_vocabulary, folder)
    plain = tokenize.PromptTokenizer(folder, load, 77, "<|endoftext|>")
    assert not np.array_equal(plain(HARD[:1]), got[:1])  # without mending they differ
