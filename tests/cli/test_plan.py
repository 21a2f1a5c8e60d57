"""`osjax plan` as a user runs it, by arithmetic, and with the TPU's compiler where it is installed."""

import json
from importlib.util import find_spec

import pytest

import osjax
from osjax.__main__ import main
from tests.parallel import processes

SMOKE = ["plan", "--config=configs/smoke.py", "--stage=stage1_t2v"]


def test_a_plan_is_a_table_json_and_a_page(tmp_path, capsys):
    files = [f"--json={tmp_path / 'plan.json'}", f"--html={tmp_path / 'plan.html'}", f"--markdown={tmp_path / 'p.md'}"]
    assert main([*SMOKE, "--target=h200x8", "--no-compile", "--price=3", "--mfu=0.5", *files]) == 0
    said = capsys.readouterr().out
    assert "| mesh | data 8 |" in said and "every stage fits" in said and "h200" not in said.splitlines()[-1]
    whole = json.loads((tmp_path / "plan.json").read_text())
    (stage,) = whole["stages"]
    assert stage["largest"]["mfu"] == 0.5 and stage["compiled"] is None and stage["fits"]
    work = 3 * stage["largest"]["forward_flops"] / (0.5 * 8 * 989.4e12)
    assert stage["seconds"] == pytest.approx(work)  # latents come from disk: nothing to encode
    assert stage["dollars"] == pytest.approx(16 * work / 3600 * 8 * 3)
    assert "stage1_t2v" in (tmp_path / "plan.html").read_text()
    page = (tmp_path / "p.md").read_text()
    assert page.startswith("# Plan for 8 h200, by arithmetic\n") and "## stage1_t2v\n\n|  | stage1_t2v |" in page


def test_encoding_counts_where_latents_are_not_on_disk(tmp_path):
    def seconds(**overrides):
        path = tmp_path / "plan.json"
        flags = [f"--config.stages.stage1_t2v.{key}={value}" for key, value in overrides.items()]
        assert main([*SMOKE, "--target=h200x8", "--no-compile", f"--json={path}", *flags]) == 0
        return json.loads(path.read_text())["stages"][0]["seconds"]

    assert seconds(**{"data.cached": False}) > 1.1 * seconds(**{"data.cached": True})


def test_a_search_prints_the_fastest_that_fit(capsys):
    assert main([*SMOKE, "--target=h200x8", "--search"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| data") or "| fsdp" in line]
    assert 4 <= len(rows) <= 8
    rates = [float(row.split("|")[5]) for row in rows]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--target=v5p"], "target 'v5p' is not understood"),
        (["--target=h200x8", "--mesh=3,1,1,1"], "mesh data=3, fsdp=1, sequence=1, tensor=1 does not fit 8 devices"),
        (["--target=h200x8", "--mesh=8"], "--mesh '8' is not understood"),
        (["--target=h200x8", "--mfu=45"], "--mfu 45.0 is no share"),
        (["--target=h200x8", "--stage=stage9"], "no diffusion stage 'stage9': use stage1_t2v"),
        (["--target=h200x8", "--config=configs/eval/recon.py"], "this config is no training run"),
        ([], "--target"),
    ],
)
def test_what_cannot_be_planned_is_one_line(flags, says, capsys):
    base = [part for part in SMOKE if not part.startswith("--stage") and not any("--config" in f for f in flags)]
    assert main([*(base or ["plan"]), *flags]) in (1, 2)
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "key, value",
    [
        ("model.in_channels", 32),
        ("model.attention", "banana"),
        ("modes.t2v", -1.0),
        ("optimizer.schedule", "cosin"),
        ("text.width", 30),
        ("data.buckets", "64px,8"),
        ("start.layout", "banana"),
    ],
)
def test_a_plan_refuses_what_a_run_refuses_in_the_same_words(key, value, capsys):
    wrong = f"--config.stages.stage1_t2v.{key}={value}"
    said = []
    for verb in (["train", "--dry-run"], ["plan", "--target=h200x8", "--no-compile"]):
        assert main([*verb, "--config=configs/smoke.py", wrong]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1] and len(said[0].splitlines()) == 1 and "stage1_t2v" in said[0]
    assert main(["plan", "--target=h200x8", "--no-compile", "--config=configs/smoke.py"]) == 0  # the control


def test_a_plan_from_python_is_that_of_the_command(tmp_path, capsys):
    path = tmp_path / "plan.json"
    assert main([*SMOKE, "--target=h200x8", "--no-compile", f"--json={path}"]) == 0
    told = json.loads(path.read_text())
    made = osjax.plan("configs/smoke.py", "h200x8", stages=["stage1_t2v"], compiled=False)
    assert json.loads(json.dumps(made)) == told
    slower = osjax.plan("configs/smoke.py", "h200x8", stages=["stage1_t2v"], compiled=False, mfu=0.1)
    assert slower["stages"][0]["seconds"] > told["stages"][0]["seconds"]
    with pytest.raises(osjax.errors.UserError, match="no diffusion stage 'stage9': use stage1_t2v"):
        osjax.plan("configs/smoke.py", "h200x8", stages=["stage9"])


@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs osjax[plan], TPU's compiler")
@pytest.mark.timeout(900)
def test_the_tpu_compiler_says_memory_and_collectives(tmp_path):
    """In a process of its own: the compiler's library stays in the one that loads it."""
    path = tmp_path / "plan.json"
    flags = ["--target=v5e:2x4", "--mesh=1,8,1,1", f"--json={path}", "--config.stages.stage1_t2v.model.attention=flash"]
    code = f"import sys; from osjax.__main__ import main; sys.exit(main({[*SMOKE, *flags]!r}))"
    assert processes.run_for_tpu(code).returncode == 0
    (stage,) = json.loads(path.read_text())["stages"]
    assert stage["compiled"]["peak"] > stage["compiled"]["arguments"] > 0
    kinds = {c["kind"] for c in stage["collectives"]}
    assert "all-gather" in kinds and kinds & {"reduce-scatter", "all-reduce"}
