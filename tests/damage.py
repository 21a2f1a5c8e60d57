"""Seeded damages of files, for tests that put them through readers."""

import random

WORDS = (
    b"\0",
    b"\xff" * 4,
    b"9" * 400,
    b"NaN",
    b'"' * 3,
    b"{",
    b"[" * 5000,
    b"../../etc/passwd",
    b"-1",
    b"\n",
    b",,,,",
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy with one damage: bits flipped, cut short, a piece moved, or words put in that parsers dislike."""
    out = bytearray(data or b"x")
    at = rng.randrange(len(out))
    match rng.randrange(5):
        case 0:
            for _ in range(rng.randint(1, 8)):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        case 1:
            del out[at:]
        case 2:
            other = rng.randrange(len(out))
            out[at : at + 64] = out[other : other + 64]
        case 3:
            out[at:at] = rng.choice(WORDS)
        case 4:
            out[at : at + rng.randint(1, 200)] = b""
    return bytes(out)
