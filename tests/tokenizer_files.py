"""Small tokenizer files of the kinds that T5 and CLIP folders hold, trained or written at test time."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

TEXTS = ["a red circle moves left over a striped background", "two dogs run, it's 24 fps.", "A Café's sign"] * 4


def write_t5(folder: Path) -> int:
    """A Unigram tokenizer as T5's: pieces of words behind a metaspace, and an end token. Returns its size."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS, trainer=trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer.get_vocab_size()


def write_clip(folder: Path) -> int:
    """vocab.json and merges.txt: bytes, bytes that end a word, merges, two special tokens. Returns the size."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d</w>"), ("l", "e"), ("d", "o"), ("do", "g"), ("dog", "s</w>")]
    words = [*letters, *(x + "</w>" for x in letters), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)))
    return len(words)
