"""The command line, run as a user runs it: in a process of its own; a small script adds a verb to the table."""

import os
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest

from osjax.__main__ import VERBS, main, options_of, split_config_flags
from osjax.errors import UserError

ROOT = Path(__file__).parents[1]

ECHO_VERB = """
from osjax.errors import UserError

def add_options(parser):
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--fail", choices=("user", "bug", "interrupt"))

def run(cfg, args):
    if args.fail == "user":
        raise UserError("the clip is too short; give at least 5 frames")
    if args.fail == "bug":
        raise ZeroDivisionError("first line\\nsecond line")
    if args.fail == "interrupt":
        raise KeyboardInterrupt
    print(" ".join([f"{cfg.model.width} {cfg.lr} {cfg.name}"] * args.times))
"""

WITH_ECHO = """
import sys
from osjax import __main__ as cli
cli.VERBS["echo"] = cli.Verb("echo_verb", "print some config keys")
sys.exit(cli.main())
"""

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({"lr": 1e-3, "name": "small", "model": {"width": 64}})
"""


@pytest.fixture
def osjax(tmp_path):
    (tmp_path / "echo_verb.py").write_text(ECHO_VERB)
    (tmp_path / "cli.py").write_text(WITH_ECHO)
    (tmp_path / "my.py").write_text(CONFIG)
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "broken.py").write_text("def get_config():\n    return 1 / 0\n")
    return lambda *argv: _process([sys.executable, "cli.py", *argv], tmp_path)


def _process(command, cwd):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def _one_line(result, status):
    assert result.returncode == status, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_help_lists_the_verbs_and_imports_no_jax(tmp_path):
    code = "import sys\nfrom osjax.__main__ import main\nassert main(['--help']) == 0\nassert 'jax' not in sys.modules"
    result = _process([sys.executable, "-c", code], tmp_path)
    assert result.returncode == 0, result.stderr
    assert all(f"  {verb} " in result.stdout for verb in VERBS)


def test_python_dash_m_osjax_is_the_same_command(tmp_path):
    result = _process([sys.executable, "-m", "osjax", "--version"], tmp_path)
    assert result.returncode == 0 and result.stdout.startswith("osjax ")
    assert "nosuch" in _one_line(_process([sys.executable, "-m", "osjax", "nosuch"], tmp_path), 2)


def test_config_and_overrides_reach_the_verb(osjax):
    result = osjax("echo", "--config=my.py", "--config.lr=1e-5", "--config.model.width", "128", "--times=2")
    assert (result.returncode, result.stdout) == (0, "128 1e-05 small 128 1e-05 small\n"), result.stderr
    assert osjax("echo", "--config=my.py").stdout == "64 0.001 small\n"


@pytest.mark.parametrize(
    "argv, says",
    [
        (["ehco", "--config=my.py"], "did you mean echo?"),
        (["--hlep"], "did you mean --help?"),
        (["echo", "--config=my.py", "--tims=2"], "did you mean --times?"),
        (["echo", "--config=my.py", "--tim=2"], "did you mean --times?"),
        (["echo", "--config=my.py", "--times=two"], "invalid int value"),
        (["echo", "--config=my.py", "stray"], "unknown argument stray"),
        (["echo"], "needs --config=FILE.py"),
        (["echo", "--config"], "--config needs a value"),
        (["echo", "--config=mi.py"], "config file mi.py does not exist"),
        (["echo", "--config=empty.py"], "no get_config()"),
        (["echo", "--config=broken.py"], "failed at line 2: ZeroDivisionError"),
        (["echo", "--config=my.py", "--config.model.widht=8"], "did you mean model.width?"),
        (["echo", "--config=my.py", "--config.width=8"], "did you mean model.width?"),
        (["echo", "--config=my.py", "--config.model=8"], "is a group"),
        (["echo", "--config=my.py", "--config.model.width=wide"], "takes int"),
    ],
)
def test_bad_usage_is_one_line_with_status_2(osjax, argv, says):
    assert says in _one_line(osjax(*argv), 2)


def test_an_option_that_stands_for_a_config_takes_its_place_and_not_beside_another(osjax, tmp_path):
    with (tmp_path / "echo_verb.py").open("a") as file:
        file.write(
            f"\n\ndef config_of(args):\n    return {str(tmp_path / 'other.py')!r} if args.times == 3 else None\n"
        )
    (tmp_path / "other.py").write_text(CONFIG.replace("small", "other"))
    assert osjax("echo", "--config=my.py", "--times=1").stdout == "64 0.001 small\n"
    chosen = osjax("echo", "--times=3", "--config.lr=2.0")
    assert chosen.stdout == " ".join(["64 2.0 other"] * 3) + "\n", chosen.stderr
    assert "give one of them" in _one_line(osjax("echo", "--config=my.py", "--times=3"), 2)


def test_failures_are_one_line_with_status_1_and_traceback_shows_the_rest(osjax):
    assert "give at least 5 frames" in _one_line(osjax("echo", "--config=my.py", "--fail=user"), 1)
    assert "interrupted" in _one_line(osjax("echo", "--config=my.py", "--fail=interrupt"), 1)
    bug = _one_line(osjax("echo", "--config=my.py", "--fail=bug"), 1)
    assert "ZeroDivisionError: first line second line; run again with --traceback" in bug
    shown = osjax("echo", "--traceback", "--config=my.py", "--fail=bug")
    assert shown.returncode == 1 and "Traceback" in shown.stderr and "echo_verb.py" in shown.stderr


def test_a_verb_lists_its_own_options(osjax):
    result = osjax("echo", "--help")
    assert result.returncode == 0 and "--times" in result.stdout and "--config=FILE.py" in result.stdout


def test_no_verb_prints_the_help_and_fails(capsys):
    assert main([]) == 2
    assert "usage: osjax VERB" in capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_in_the_table_works_as_one(name, capsys):
    module = import_module(VERBS[name].module)
    assert callable(module.run) and "--config" in options_of(name)
    assert main([name, "--help"]) == 0
    assert VERBS[name].summary.split()[0] in capsys.readouterr().out
    assert main([name, "--no-such-flag"]) == 2


def test_every_verb_of_the_command_line_is_in_the_table():
    verbs = [p for p in (ROOT / "osjax/cli").glob("*.py") if "def run(" in p.read_text() and p.stem != "sample_memory"]
    modules = {f"osjax.cli.{p.stem}" for p in verbs}
    assert modules == {verb.module for verb in VERBS.values()}


def test_config_flags_are_found_wherever_they_stand():
    path, overrides, rest = split_config_flags(
        ["a", "--config=f.py", "--config.x=1=2", "--config.y", "-3", "--configs"]
    )
    assert (path, overrides, rest) == ("f.py", [("x", "1=2"), ("y", "-3")], ["a", "--configs"])
    with pytest.raises(UserError, match="needs a value"):
        split_config_flags(["--config.x", "--y"])


@pytest.mark.parametrize(
    "verb, status, says", [("fly", 2, "unknown verb fly"), ("--version", 0, "what is registered for the end\n")]
)
def test_a_command_does_not_wait_for_the_threads_of_a_failed_save(verb, status, says):
    """A stand-in for Orbax's, which wait five minutes."""
    code = """
import atexit, sys, threading, time
from osjax.__main__ import main

atexit.register(lambda: sys.stderr.write("what is registered for the end\\n"))

class _SignalingThread(threading.Thread):
    pass

_SignalingThread(target=time.sleep, args=[300]).start()
sys.argv = ["osjax", sys.argv[1]]
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True, timeout=60)
    assert done.returncode == status and says in done.stderr


def test_that_thread_is_still_called_so_by_orbax():
    from orbax.checkpoint._src.futures import future

    assert issubclass(future._SignalingThread, threading.Thread)
