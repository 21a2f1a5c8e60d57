"""A run from its config: every mistake is told at once, and meshes and attention are those of the devices."""

import jax
import pytest

from osjax.__main__ import main
from osjax.errors import Problems, UserError
from osjax.parallel import mesh
from osjax.parts import config, run
from osjax.training import optimizer

STAGE1, STAGE2 = "stages.stage1_t2v", "stages.stage2_i2v"


def test_all_mistakes_of_a_config_are_told_at_once_a_line_each_with_status_2(tmp_path, capsys):
    wrong = {
        f"{STAGE1}.steps": 0,
        f"{STAGE1}.model.vec_in_dim": 64,
        f"{STAGE1}.data.fps_max": 24,
        f"{STAGE1}.text.t5": "here",
        "stages.autoencoder.seed": -1,
        "stages.stage3_i2v.mesh.fsdp": 99,
    }
    flags = [f"--config.{key}={value}" for key, value in wrong.items()]
    assert main(["train", "--config=configs/smoke.py", f"--workdir={tmp_path / 'new'}", *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "autoencoder: seed is -1" in lines[0]  # what builds on it is not blamed
    flags.remove("--config.stages.autoencoder.seed=-1")
    assert main(["train", "--config=configs/smoke.py", f"--workdir={tmp_path / 'new'}", *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" is ")[0] for line in lines[:1]] == ["osjax: stage1_t2v: steps"]
    assert "stage1_t2v: text.t5 and text.clip belong together" in lines[1] and len(lines) == 2


def test_stages_that_do_not_build_on_each_other_tell_their_mistakes_together():
    wrong = {f"{STAGE2}.steps": 0, f"{STAGE1}.seed": -1, f"{STAGE2}.start.stage": "autoencoder"}
    with pytest.raises(Problems) as refused:
        run.of_config(config.load("configs/smoke.py", wrong))
    assert [line.split(":")[0] for line in refused.value.lines] == ["stage1_t2v", "stage2_i2v"]
    assert refused.value.status == 2 and str(refused.value) == "; ".join(refused.value.lines)


def test_a_mesh_that_may_fit_is_made_of_the_devices_that_are_there():
    asked = {f"{STAGE1}.mesh.fsdp": 3, f"{STAGE1}.mesh.fit": True, f"{STAGE1}.mesh.data": 1}
    made = run.of_config(config.load("configs/smoke.py", asked)).stages["stage1_t2v"].mesh
    assert made.size == jax.device_count()
    with pytest.raises(UserError, match="stage1_t2v: mesh data=1, fsdp=3.* does not fit 8 devices"):
        run.of_config(config.load("configs/smoke.py", {**asked, f"{STAGE1}.mesh.fit": False}))


def test_attention_auto_is_blockwise_on_processors_and_flash_elsewhere():
    cfg = config.load("configs/smoke.py", {f"{STAGE1}.model.attention": "auto"})
    assert run.of_config(cfg).stages["stage1_t2v"].model.attention == "blockwise"
    absent = run.of_config(cfg, lambda **sizes: mesh.absent(**sizes, count=8))
    assert absent.stages["stage1_t2v"].model.attention == "flash"
    assert run.of_config(config.load("configs/smoke.py")).stages["stage1_t2v"].model.attention == "dense"


def test_a_sampling_config_that_cannot_run_has_status_2(tmp_path, capsys):
    argv = ["sample", f"--workdir={tmp_path}", "--prompt=a red circle"]
    for flag in ("--config.mesh.fsdp=99", "--steps=0", "--layout=banana", "--mode=banana"):
        assert main([*argv, flag]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_cosine_without_an_end_of_its_own_ends_with_its_stage_and_keeps_its_shape_when_that_is_shortened():
    rates = {}
    for steps in (40, 400):
        asked = {
            f"{STAGE1}.steps": steps,
            f"{STAGE1}.optimizer.schedule": "cosine",
            f"{STAGE1}.optimizer.warmup_steps": 0,
        }
        made = run.of_config(config.load("configs/smoke.py", asked)).stages["stage1_t2v"].optimizer
        rates[steps] = [float(optimizer.learning_rate(made)(steps * share // 4)) for share in range(5)]
    assert rates[40] == pytest.approx(rates[400], abs=1e-12) and rates[40][4] == 0 < rates[40][3]
    longer = {f"{STAGE1}.optimizer.schedule": "cosine", f"{STAGE1}.optimizer.warmup_steps": 16}
    with pytest.raises(UserError, match="optimizer.warmup_steps is 16 of 16 steps"):
        run.of_config(config.load("configs/smoke.py", longer))


@pytest.mark.parametrize(
    ("decay", "says"),
    [(20, "is 20 of 16 steps, so the rate never comes down"), (6, "is 6 of 16 steps, so most are at"), (10, "")],
)
def test_a_rate_that_never_comes_down_or_is_mostly_at_its_floor_is_warned_of(decay, says, caplog):
    asked = {f"{STAGE1}.optimizer.schedule": "cosine", f"{STAGE1}.optimizer.decay_steps": decay}
    run.of_config(config.load("configs/smoke.py", asked))
    assert says in caplog.text and bool(caplog.text) == bool(says)
