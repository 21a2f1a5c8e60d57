"""A program of its own: reads a tokenizer.json and tries it on a few texts, within limits of time and memory.

`tokenizers` is native code with regular expressions of the file's choice: a hostile one panics, or takes minutes for a
sentence. What happens here happens to this process alone. Imports nothing of osjax, so that it starts at once.
"""

import resource
import sys

from tokenizers import Tokenizer

SECONDS, MEMORY = 20, 4 << 30
TEXTS = (
    *("", "a red bus, at night", "ünïcödé 北京 ☃", "a" * 2000 + "!", " " * 2000 + "a", "1" * 2000 + "x", "\n\t" * 500),
    *(
        "aB" * 1000 + "!",
        "-" * 2000 + "a",
        "é" * 1000 + "!",
        "the cat " * 300 + "\x00",
        "<pad></s><|endoftext|>",
        "x" * 77,
    ),
)


def main(path: str) -> None:
    """Exit with 0 where the tokenizer of the file at `path` makes ids of all texts, twice the same."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_padding()
    for text in TEXTS:
        once, twice = (tokenizer.encode(text).ids for _ in range(2))
        if once != twice:
            sys.exit("its ids differ from call to call")


if __name__ == "__main__":
    main(sys.argv[1])
