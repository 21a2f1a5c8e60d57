"""The launch scripts: they parse, they name verbs and flags that exist, and XLA knows the compiler flags they set."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from osjax.__main__ import VERBS, options_of

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
MANIFEST, SUPERVISOR = LAUNCH / "gke.yaml", LAUNCH / "supervise.py"
LAUNCHERS = [p for p in SCRIPTS if not p.name.startswith("env_")]
DOCS = [LAUNCH.parent / "docs" / name for name in ("multihost.md", "performance.md")]
PAGES = [*SCRIPTS, MANIFEST, SUPERVISOR, *DOCS, LAUNCH / "README.md", LAUNCH.parent / "README.md"]
names = pytest.mark.parametrize("script", SCRIPTS, ids=[p.name for p in SCRIPTS])


def _commands(page: Path) -> list[tuple[str, list[str]]]:
    """(verb, flags) of each `osjax VERB ...` in a script, or in the code of a Markdown page."""
    text = page.read_text()
    if page.suffix == ".md":
        text = "\n".join(a or b for a, b in re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", text, re.S))
    text = text.replace("\\\n", " ")
    found = re.findall(r"(?<![\w/.-])osjax ((?:--)?[a-z]\w*)([^`\n#]*)", text)
    return [(verb, re.findall(r"(?<!\S)--[\w-]+", rest)) for verb, rest in found]


@names
def test_every_script_parses_and_stops_at_errors(script):
    result = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert script.read_text().startswith("#!/usr/bin/env bash\n") and os.access(script, os.X_OK)
    if not script.name.startswith("env_"):  # those are sourced, and must not change the caller's shell
        assert "set -euo pipefail" in script.read_text()


def test_a_script_with_a_missing_quote_does_not_parse(tmp_path):
    (tmp_path / "bad.sh").write_text('echo "half\n')
    assert subprocess.run(["bash", "-n", tmp_path / "bad.sh"], capture_output=True).returncode != 0


def _mistakes(page: Path) -> list[str]:
    """What in a page's commands does not exist. `osjax --help` and the like have no verb to check."""
    commands = [(verb, flags) for verb, flags in _commands(page) if not verb.startswith("--")]
    unknown = [verb for verb, _ in commands if verb not in VERBS]
    known = [(verb, flags) for verb, flags in commands if verb in VERBS]
    return unknown + [f"{verb} {flag}" for verb, flags in known for flag in flags if flag not in options_of(verb)]


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(LAUNCH.parent)) for p in PAGES])
def test_every_command_names_a_verb_and_flags_that_exist(page):
    assert _commands(page), f"{page.name} shows no osjax command"
    assert _mistakes(page) == []


@pytest.mark.parametrize("name", ["bad.sh", "bad.md"])
def test_a_command_that_does_not_exist_is_found(tmp_path, name):
    text = 'source a && osjax demo --cnofig=x --config.a=1\nA=$i osjax trian $options\nA="$i" osjax fly &\n'
    (tmp_path / name).write_text(f"osjax prose\n```bash\n{text}```\n" if name.endswith("md") else text)
    assert [verb for verb, _ in _commands(tmp_path / name)] == ["demo", "trian", "fly"]
    assert _mistakes(tmp_path / name) == ["trian", "fly", "demo --cnofig"]


@pytest.mark.parametrize("page", [*LAUNCHERS, MANIFEST], ids=lambda p: p.name)
def test_every_launcher_ends_in_osjax_train_with_config_and_workdir(page):
    flags = {flag for verb, flags in _commands(page) if verb == "train" for flag in flags}
    assert {"--config", "--workdir"} <= flags and flags & {"--multihost", "--coordinator"}


@pytest.mark.parametrize("script", LAUNCHERS, ids=lambda p: p.name)
def test_a_launcher_without_arguments_says_how_it_is_used(script):
    result = subprocess.run([script], capture_output=True, text=True, cwd=LAUNCH.parent)
    assert result.returncode == 2 and result.stderr.startswith("usage: ") and "CONFIG WORKDIR" in result.stderr


def test_every_launcher_is_in_the_table_of_the_readme():
    page = (LAUNCH / "README.md").read_text()
    assert [p.name for p in [*SCRIPTS, MANIFEST, SUPERVISOR] if p.name not in page] == []


def test_the_manifest_fails_for_good_on_usage_errors_alone():
    (jobs,) = (spec := yaml.safe_load(MANIFEST.read_text())["spec"])["replicatedJobs"]
    job = jobs["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert spec["failurePolicy"]["rules"][0]["action"] == "FailJobSet" and spec["failurePolicy"]["maxRestarts"] > 0
    hosts = math.prod(map(int, job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    assert hosts // container["resources"]["limits"]["google.com/tpu"] == job["parallelism"] == job["completions"]


@names
def test_every_compiler_flag_has_a_reason(script):
    flags = [line for line in script.read_text().splitlines() if re.match(r"\s*--xla\w+=", line)]
    assert all(re.search(r"=\S+ +# \w+", line) for line in flags)
    assert flags or not script.name.startswith("env_")


def _source(script: Path, variable: str, **env) -> str:
    command = ["bash", "-euc", f'source "{script}"; printf %s "${variable}"']
    clean = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")}
    return subprocess.run(command, env={**clean, **env}, capture_output=True, text=True, check=True).stdout


def _jax_starts(flags: str) -> bool:
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(command, env=env, capture_output=True, timeout=120).returncode == 0


def test_xla_knows_every_gpu_flag():
    flags = _source(LAUNCH / "env_gpu.sh", "XLA_FLAGS")
    assert flags.count("--xla_gpu_") >= 5 and _jax_starts(flags)
    assert not _jax_starts(flags.replace("latency_hiding", "latency_hidding"))


def test_the_users_own_flags_come_last():
    mine = "--xla_gpu_enable_latency_hiding_scheduler=false"
    assert _source(LAUNCH / "env_gpu.sh", "XLA_FLAGS", XLA_FLAGS=mine).endswith(mine)
    assert _source(LAUNCH / "env_tpu.sh", "LIBTPU_INIT_ARGS", LIBTPU_INIT_ARGS=mine).endswith(mine)
