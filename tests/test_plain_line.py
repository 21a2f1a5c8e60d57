"""Names and texts of strangers on a terminal and in logs."""

import logging
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from osjax import plain_line
from tests.data.test_opened import grey

EVIL = "a\x1b]0;owned\x07\x1b[2J\nERROR all is lost \u202egpj.exe\udc80"


@given(st.text(st.characters()))
def test_no_character_that_acts_is_left_and_others_stay(text):
    plain = plain_line.plain(text)
    assert plain.isprintable() or all(c.isprintable() or c.isspace() or not c.isascii() for c in plain)
    assert len(plain.splitlines()) <= 1 and "\x1b" not in plain
    assert plain_line.plain(plain) == plain
    plain.encode()  # a terminal takes it
    if text.isprintable():
        assert plain == text


def test_a_message_of_the_log_is_one_line(caplog):
    record = logging.LogRecord("a", logging.WARNING, "p", 1, "dropped: %s", (EVIL,), None)
    line = plain_line.Formatter("%(levelname)s %(message)s").format(record)
    assert line == "WARNING dropped: a\\x1b]0;owned\\x07\\x1b[2J\\nERROR all is lost \\u202egpj.exe\\udc80"


def test_captions_and_names_with_escapes_do_not_act_on_the_terminal_of_a_command(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "good.mp4").write_bytes(grey(frames=8))
    (tmp_path / "clips" / "good.txt").write_text("a clip")
    (tmp_path / "clips" / "b\x1b[2Jad\nosjax: all is well.mp4").write_bytes(b"none")
    words = ["data", "build", str(tmp_path / "clips"), str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "osjax", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "\\x1b[2Jad\\nosjax: all is well.mp4" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    assert not any(line.startswith("osjax:") for line in done.stderr.splitlines())
