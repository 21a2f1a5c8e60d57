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
MANIFEST, GPU_MANIFEST, SUPERVISOR = LAUNCH / "gke.yaml", LAUNCH / "kubernetes_gpu.yaml", LAUNCH / "supervise.py"
SKY, DOCKERFILES = LAUNCH / "sky.yaml", sorted(LAUNCH.glob("*.Dockerfile"))
LAUNCHERS = [p for p in SCRIPTS if not p.name.startswith("env_")]
DOCS = [LAUNCH.parent / "docs" / name for name in ("multihost.md", "performance.md")]
PAGES = [*SCRIPTS, MANIFEST, GPU_MANIFEST, SKY, SUPERVISOR, *DOCS, LAUNCH / "README.md", LAUNCH.parent / "README.md"]
names = pytest.mark.parametrize("script", SCRIPTS, ids=[p.name for p in SCRIPTS])


def _commands(page: Path) -> list[tuple[str, list[str]]]:
    """(verb, flags) of each `osjax VERB ...` in a script, or in the code of a Markdown page."""
    text = page.read_text()
    if page.suffix == ".md":
        text = "\n".join(a or b for a, b in re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", text, re.S))
    text = text.replace("\\\n", " ")
    if page.suffix == ".yaml":  # folded lines
        text = re.sub(r"\n +--", " --", text)
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


@pytest.mark.parametrize("page", [*LAUNCHERS, MANIFEST, GPU_MANIFEST, SKY], ids=lambda p: p.name)
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
    assert [p.name for p in (GPU_MANIFEST, SKY, *DOCKERFILES) if p.name not in page] == []


def test_the_manifest_fails_for_good_on_usage_errors_alone():
    (jobs,) = (spec := list(yaml.safe_load_all(MANIFEST.read_text()))[-1]["spec"])["replicatedJobs"]
    job = jobs["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert spec["failurePolicy"]["rules"][0]["action"] == "FailJobSet" and spec["failurePolicy"]["maxRestarts"] > 0
    hosts = math.prod(map(int, job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    assert hosts // container["resources"]["limits"]["google.com/tpu"] == job["parallelism"] == job["completions"]


def test_what_a_gpu_job_is_told_comes_from_its_config_map_and_the_first_pod_coordinates():
    service, values, job = yaml.safe_load_all(GPU_MANIFEST.read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (command,) = container["args"]
    first = f"--coordinator={job['metadata']['name']}-0.{service['metadata']['name']}:8476"
    assert first in command and pod["subdomain"] == service["metadata"]["name"]
    used = set(re.findall(r"\$([A-Z]+)\b", command))
    assert used == set(values["data"]) and int(values["data"]["PROCESSES"]) == job["spec"]["completions"]
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("file", [*LAUNCHERS, MANIFEST, GPU_MANIFEST, SKY, *DOCKERFILES], ids=lambda p: p.name)
def test_a_launch_file_says_where_it_was_run(file):
    head = " ".join(line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#"))
    assert re.search(r"[Nn]ever (built|run)|Run with|Run by the tests|Run on", head), head


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda p: p.name)
def test_a_container_is_pinned_runs_as_nobody_special_and_has_a_health_check(file):
    text = file.read_text()
    assert re.search(r"^FROM python:3\.\d+\.\d+-slim-\w+$", text, re.M) and re.search(r"^USER [1-9]\d*$", text, re.M)
    assert "\nHEALTHCHECK " in text
    copied = re.findall(r"^COPY (.+) \S+$", text, re.M)
    assert copied and all((LAUNCH.parent / name).exists() for names in copied for name in names.split())


@pytest.mark.parametrize("launcher", ("gpu_hosts.sh", "tpu_pod.sh"))
@pytest.mark.parametrize("install", ("", "1"))
def test_hosts_are_entered_by_their_virtual_environment_and_installed_where_asked(launcher, install, tmp_path):
    """Stand-ins for ssh and gcloud start a shell, those for pip, python3 and osjax write what they were called with."""
    tools, clone, venv = tmp_path / "tools", tmp_path / "osjax", tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    tools.mkdir()
    clone.mkdir()
    (clone / "launch").symlink_to(LAUNCH)
    (venv / "bin/activate").write_text(f'PATH="{venv}/bin:$PATH"\n')
    for place, name, text in (
        (tools, "ssh", 'bash -c "${@: -1}"'),
        (tools, "gcloud", 'last="${@: -1}"; bash -c "${last#--command=}"'),
        (venv / "bin", "pip", f'echo "pip $*" >>"{tmp_path}/calls"'),
        (venv / "bin", "python3", f'echo "python3 $*" >>"{tmp_path}/calls"'),
    ):
        (place / name).write_text(f"#!/bin/bash\n{text}\n")
        (place / name).chmod(0o755)
    where = ["h0 h1"] if launcher == "gpu_hosts.sh" else ["NAME", "ZONE"]
    more = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path), "OSJAX_VENV": "~/venv", "INSTALL": install}
    command = [LAUNCH / launcher, *where, "CONFIG", "my work"]
    subprocess.run(command, env={**os.environ, **more}, check=True, capture_output=True, text=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    ran = [call for call in calls if call.startswith("python3 launch/supervise.py -- osjax train --config=CONFIG")]
    assert len(ran) == len(where[0].split()) and all("--workdir=my work" in call for call in ran)
    assert sum(call.startswith("pip install -q -e .[") for call in calls) == (len(ran) if install else 0)


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


COMPILES = """
import os, sys
os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(topologies.get_topology_desc(sys.argv[1], platform="tpu").devices).reshape(-1), ("x",))
split = NamedSharding(mesh, P("x"))
weights = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)
step = jax.jit(lambda a, w: jnp.tanh(a @ w) @ w.T, in_shardings=(split, split), out_shardings=split)
print("all-gather" in step.lower(weights, weights).compile().as_text())
"""


@pytest.mark.parametrize("topology", ("v5p:2x2x1", "v6e:2x2"))
def test_libtpu_compiles_gathers_with_the_tpu_flags(topology):
    pytest.importorskip("libtpu")
    flags = _source(LAUNCH / "env_tpu.sh", "LIBTPU_INIT_ARGS")

    def compiles(flags):
        env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # libtpu reads it, too
        env |= {"LIBTPU_INIT_ARGS": flags, "JAX_PLATFORMS": "cpu"}
        words = [sys.executable, "-c", COMPILES, topology]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
        return done.stdout.strip() == "True"

    assert compiles(flags)
    assert not compiles(f"{flags} --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true")  # of v5e alone


def test_the_users_own_flags_come_last():
    mine = "--xla_gpu_enable_latency_hiding_scheduler=false"
    assert _source(LAUNCH / "env_gpu.sh", "XLA_FLAGS", XLA_FLAGS=mine).endswith(mine)
    assert _source(LAUNCH / "env_tpu.sh", "LIBTPU_INIT_ARGS", LIBTPU_INIT_ARGS=mine).endswith(mine)
