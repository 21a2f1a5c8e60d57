"""Captions and tables in the encodings that people have, and what stands for no caption."""

import pytest

from osjax.data import plain_text
from osjax.errors import UserError

TEXT = "a café at night — “夜”\nзима 7"
ENCODINGS = ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["without mark", "with mark"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", [TEXT, "a red bus", "красный автобус", "夜 7", "x", ""])
def test_unicode_is_read_with_a_mark_and_without(text, encoding, mark):
    assert plain_text.decode((mark + text).encode(encoding)) == text


def test_the_encoding_is_found_and_not_assumed():
    swapped = "夜 7".encode("utf-16-be")
    assert swapped.decode("utf-16-le") != "夜 7"  # another reading exists, of which nothing may come out


@pytest.mark.parametrize(
    "data, says",
    [
        ("a café".encode("cp1252"), "line 1 is neither UTF-8"),
        ("one\nниже".encode("cp1251"), "line 2 is neither UTF-8"),
        ("赤いバス".encode("shift_jis"), "neither UTF-8"),
        ("夜".encode() + b" \xe5\xa4", "neither UTF-8"),  # cut inside a character
        (b"\xff\xfea", "begins with the mark of utf-16-le but is not"),
        (b"a\0\0b\x01", "holds NUL"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00", "holds NUL"),  # a video's bytes under a wrong name
    ],
)
def test_other_encodings_are_refused_and_never_guessed(data, says):
    with pytest.raises(UserError, match=says) as error:
        plain_text.decode(data)
    assert "\n" not in str(error.value)


def test_marks_inside_and_line_ends_of_other_systems_are_taken_out():
    assert plain_text.decode("a\r\nb\ufeff\rc".encode()) == "a\nb\nc"


@pytest.mark.parametrize(
    "value", [None, float("nan"), "", "  \n", "\u200b", "\ufeff", "nan", "NaN", " None ", "null", "<NA>", "N/A"]
)
def test_what_stands_for_nothing_is_no_caption(value):
    assert plain_text.caption(value) == ""


@pytest.mark.parametrize("text", ["none of them moves", "a nan bread", "nullarbor", "0", "."])
def test_words_that_only_contain_such_a_word_are_a_caption(text):
    assert plain_text.caption(f" {text} ") == text


def test_text_that_lost_characters_is_no_caption_but_can_be_read():
    assert plain_text.decode("caf\ufffd".encode()) == "caf\ufffd"  # a table may hold one such row
    with pytest.raises(UserError, match="lost characters"):
        plain_text.caption("caf\ufffd")


@pytest.mark.parametrize("value", [12, 1.5, ["one"], b"bytes", {"a": 1}])
def test_other_types_are_no_caption(value):
    with pytest.raises(UserError, match="not text"):
        plain_text.caption(value)
