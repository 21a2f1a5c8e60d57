"""Samples whose calls skip the model's blocks, against exact ones, and the tables that say which do."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.errors import UserError
from osjax.flow import guidance, sampler
from osjax.models import lora
from osjax.parallel import mesh
from osjax.sampling import cached, skips
from osjax.sampling.calibration import Branch, Calibration, Curve
from osjax.sampling.sample import Spent
from osjax.sampling.settings import SampleSettings
from tests.sampling import tiny

PROMPT = ["a red circle"]
SETTINGS = tiny.SETTINGS.changed(steps=8, reuse_run=2)
DEEPER = {"depth": 2, "depth_single_blocks": 2}


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    """Of the tiny model, measured."""
    kept = Calibration(tmp_path_factory.mktemp("calibrated") / "calibration.json", {"file": "tiny"})
    pipe = tiny.pipeline(DEEPER, settings=SETTINGS, calibration=kept)
    kept.write("t2v", pipe.observe(pipe.jobs(SETTINGS, PROMPT * 2, seeds=[5, 6]), SETTINGS))
    frame = np.full((32, 32, 3), 200, np.uint8)
    given = SETTINGS.changed(mode="i2v_head")
    kept.write("i2v_head", pipe.observe(pipe.jobs(given, PROMPT, refs=[frame]), given))
    return kept


@pytest.fixture(scope="module")
def pipe(calibration):
    return tiny.pipeline(DEEPER, settings=SETTINGS, calibration=calibration)


def made(pipe, **changes):
    pipe.spent = Spent()
    return pipe(PROMPT, **changes).latents_BTHWC, pipe.spent


@pytest.mark.parametrize("rule", skips.CACHES)
def test_a_limit_of_nearly_nothing_skips_nothing_and_gives_the_exact_bits(pipe, rule):
    exact, spent = made(pipe)
    cautious, also = made(pipe, reuse=rule, reuse_limit=1e-9)
    np.testing.assert_array_equal(cautious, exact)
    assert spent == also == (16, 16)


@pytest.mark.parametrize("rule", skips.CACHES)
def test_a_cache_skips_calls_the_same_ones_each_time_and_stays_near_the_exact_sample(pipe, rule):
    exact, _ = made(pipe)
    limit = {"magcache": 1.0, "teacache": 10.0, "first_block": 10.0}[rule]
    near, spent = made(pipe, reuse=rule, reuse_limit=limit)
    again, _ = made(pipe, reuse=rule, reuse_limit=limit)
    np.testing.assert_array_equal(near, again)
    # Of 8 steps the first two (a fifth, rounded up) and the last run; of the five between, two are skipped on end.
    assert spent == (8, 16)
    held, all_spent = made(pipe, reuse=rule, reuse_limit=limit, reuse_run=100, reuse_lines=False)
    assert all_spent == (6, 16)
    far = np.abs(held - exact).max()
    assert 0 < np.abs(near - exact).max() < far < np.abs(exact).max()


def test_each_branch_of_guidance_remembers_its_own(pipe):
    frame = np.full((32, 32, 3), 200, np.uint8)
    exact, near, wrong = (
        pipe(PROMPT, refs=[frame], mode="i2v_head", guidance_img=2.0, guidance=3.0, **changes).latents_BTHWC
        for changes in ({}, {"reuse": "magcache", "reuse_limit": 0.5}, {"seed": 7})
    )
    assert 0 < np.abs(near - exact).mean() < 0.2 * np.abs(wrong - exact).mean()


def test_lines_that_are_true_give_the_exact_sample():
    """Of residuals that change in a straight line with time, a line through the last two predicts every other one."""
    t = np.linspace(1, 0.1, 7, dtype=np.float32)
    empty, numbers = jnp.zeros((3, 1, 1, 1)), (jnp.zeros(3), jnp.zeros(3), jnp.zeros(3, int), jnp.zeros(3, int))
    memory = cached.Memory(empty, empty, None, *numbers)
    look, table = cached.Look(lines=True), None
    for time in t[:2]:
        residual = np.full((1, 1, 1), 3 - 2 * time)
        memory = cached._remember(
            look, table, memory, 1, time, cached.reuse.Reused(None, residual, None, np.bool_(False))
        )
    np.testing.assert_allclose(cached._predicted(memory, 1, t[4]), 3 - 2 * t[4], atol=1e-5)
    assert not np.any(cached._predicted(memory, 0, t[4]))  # other branches know nothing of it


def test_progress_by_step_gives_the_bits_of_the_whole_loop(pipe):
    settings = SETTINGS.changed(reuse="teacache", reuse_limit=10.0)
    jobs, steps = pipe.jobs(settings, PROMPT), []
    (_, stepped), (_, whole) = (next(pipe.stream(jobs, settings, listen)) for listen in (steps.append, None))
    assert len(steps) == 8
    np.testing.assert_array_equal(stepped, whole)


def test_offloaded_weights_and_a_split_model_skip_the_same_calls(pipe, calibration):
    changes = {"reuse": "first_block", "reuse_limit": 10.0}
    want, spent = made(pipe, **changes)
    waiting = tiny.pipeline(DEEPER, settings=SETTINGS, offload=True)
    got, also = made(waiting, **changes)
    np.testing.assert_array_equal(got, want)
    split = tiny.pipeline(
        DEEPER, settings=SETTINGS, mesh=mesh.make(data=1, sequence=2, tensor=2, devices=jax.devices()[:4])
    )
    got, of_split = made(split, **changes)
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert spent == also == of_split == (8, 16)


def test_rows_side_by_side_take_magcache_and_refuse_what_decides_in_the_run(calibration, pipe):
    rows = tiny.pipeline(
        DEEPER, settings=SETTINGS, calibration=calibration, mesh=mesh.make(data=2, devices=jax.devices()[:2])
    )
    want = pipe(PROMPT * 2, seeds=[1, 2], reuse="magcache", reuse_limit=1.0).latents_BTHWC
    got = rows(PROMPT * 2, seeds=[1, 2], reuse="magcache", reuse_limit=1.0).latents_BTHWC
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert np.abs(want[0] - want[1]).max() > 0.1
    with pytest.raises(UserError, match="2 samples at once would have to agree: use magcache"):
        rows(PROMPT * 2, reuse="first_block")


def test_adapters_beside_the_weights_are_reused_with_them(pipe):
    module, params, text = tiny.parts(DEEPER)
    adapters = lora.create(lora.LoRAConfig(2, 2.0), tiny.models.abstract_params(module.cfg), jax.random.key(0))
    adapted = lora.Adapted(params, jax.tree.map(lambda x: x + 0.1, tiny.nn.unbox(adapters)))
    mine = tiny.Pipeline(module, adapted, tiny.autoencoder(), text, settings=SETTINGS)
    exact, near = (made(mine, **changes) for changes in ({}, {"reuse": "first_block", "reuse_limit": 10.0}))
    plain, _ = made(pipe)
    assert near[1].ran < exact[1].ran
    assert np.abs(near[0] - exact[0]).mean() < np.abs(exact[0] - plain).mean()


def test_the_program_of_a_cache_is_compiled_without_weights(pipe):
    settings = SETTINGS.changed(reuse="first_block")
    lowered = {name: lower for name, _, lower in pipe.programs(settings)}["denoise"]().as_text()
    exact = {name: lower for name, _, lower in pipe.programs(SETTINGS)}["denoise"]().as_text()
    assert "stablehlo.case" in lowered or "stablehlo.if" in lowered
    assert "stablehlo.case" not in exact and "stablehlo.if" not in exact


def table(rule="magcache", limit=0.25, run=100, first=0.0, growth=(0.9,) * 9, solver="euler"):
    times = np.linspace(1, 0, 11, dtype=np.float32)
    calls, ends = sampler.plan(times, guidance.weights(10, 1, 2.0), solver)
    branch = Branch(tuple(map(float, times[:-1])), (1.0, *growth), (0.0, *[0.1] * 9), (0.0, *[0.2] * 9))
    curve = Curve(tuple(map(float, times[:-1])), (1.0,) * 10, {"0": branch, "1": branch}, 1, {})
    return skips.of_run(rule, skips.Bounds(limit, run, first), calls, ends, curve), calls, ends


def test_magcache_skips_until_the_lengths_have_gone_apart():
    skip, calls, ends = table()
    assert calls.branch_F[: ends[-1]].tolist() == [0, 1] * 10
    # 0.9 of the length: 0.1, and 0.19 more, are over 0.25 in the second call, so every other one is skipped.
    assert skip.must_F[: ends[-1] : 2].astype(int).tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 0]
    np.testing.assert_array_equal(skip.must_F[0:20:2], skip.must_F[1:20:2])
    assert not skip.must_F[ends[-1] :].any() and not skip.may_F.any()
    still, *_ = table(growth=(1.0,) * 9)
    assert still.must_F[:20:2].sum() == 8  # all but the first and the last
    assert table(growth=(1.0,) * 9, run=1)[0].must_F[:20:2].astype(int).tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 0]
    assert table(growth=(1.0,) * 9, first=0.5)[0].must_F[:20:2].sum() == 4


def test_calls_that_may_be_skipped_are_neither_the_first_nor_the_last_ones():
    skip, *_ = table("teacache", first=0.25)
    assert skip.may_F[:20:2].astype(int).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0]
    assert not skip.must_F.any()
    assert np.polyval(skip.fit_P, 0.1) == pytest.approx(0.2, abs=1e-3)  # as the curve has it
    raw, *_ = table("first_block")
    assert np.polyval(raw.fit_P, 0.1) == pytest.approx(0.1)


def test_a_guided_branch_that_was_never_watched_is_named():
    calls, ends = sampler.plan(np.linspace(1, 0, 11, dtype=np.float32), guidance.weights(10, 1, 2.0))
    branch = Branch((1.0, 0.5), (1.0, 1.0), (0.0, 0.1), (0.0, 0.1))
    curve = Curve((1.0, 0.5), (1.0, 1.0), {"0": branch}, 1, {})
    with pytest.raises(UserError, match="knows no calls of branch 1"):
        skips.of_run("magcache", skips.Bounds(0.1, 2, 0.2), calls, ends, curve)


def test_what_is_measured_is_of_the_run(calibration):
    curve = calibration.read("t2v")
    assert len(curve.times) == len(curve.bend) == 8 and curve.samples == 2 and set(curve.branches) == {"0", "1"}
    assert curve.branches["0"].growth[0] == 1 and curve.branches["0"].residual[0] == 0
    assert all(0 < change < 2 for change in curve.branches["0"].residual[1:])
    assert set(calibration.read("i2v_head").branches) == {"0", "1", "2"}


def test_a_measured_schedule_samples_at_other_times(pipe, calibration):
    plain, measured = made(pipe)[0], made(pipe, schedule="measured")[0]
    assert np.abs(plain - measured).max() > 1e-3
    assert pipe.describe(SETTINGS.changed(schedule="measured")).keys() & {"alpha", "shift"} == set()


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda c: c.update(version=2), "is of another osjax"),
        (lambda c: c.update(weights={"file": "other"}), "was measured with other weights"),
        (lambda c: c["modes"].pop("t2v"), "holds the modes i2v_head: run osjax calibrate --mode=t2v"),
        (lambda c: c["modes"]["t2v"].pop("bend"), "cannot be read"),
        (lambda c: c["modes"]["t2v"].update(bend=["x"] * 8), "cannot be read"),
        (lambda c: c["modes"]["t2v"].update(bend=[float("nan")] * 8), "not finite"),
        (lambda c: c["modes"]["t2v"].update(times=c["modes"]["t2v"]["times"][::-1]), "times do not fall"),
        (lambda c: c["modes"]["t2v"].update(branches={"9": c["modes"]["t2v"]["branches"]["0"]}), "branch 9 is none"),
        (lambda c: c["modes"]["t2v"].update(branches=[]), "cannot be read"),
        (lambda c: c.update(modes=[]), "is of another osjax"),
        (lambda c: c["modes"]["t2v"].update(samples=1e999), "cannot be read"),
    ],
)
def test_a_damaged_calibration_is_one_line(calibration, tmp_path, damage, says):
    content = json.loads(calibration.path.read_text())
    damage(content)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=says) as refused:
        Calibration(path, calibration.weights).read("t2v")
    assert "\n" not in str(refused.value)
    assert calibration.read("t2v").samples == 2


def test_without_a_calibration_what_needs_one_is_refused(tmp_path):
    bare = tiny.pipeline(calibration=Calibration(tmp_path / "calibration.json", {}))
    for changes in ({"schedule": "measured"}, {"reuse": "magcache"}, {"reuse": "teacache"}):
        with pytest.raises(UserError, match=r"calibration.json does not exist: run osjax calibrate"):
            bare(PROMPT, **changes)
    with pytest.raises(UserError, match="told of no calibration"):
        tiny.pipeline()(PROMPT, reuse="magcache")


@pytest.mark.parametrize(
    "given, says",
    [
        ({"reuse": "banana"}, "unknown reuse 'banana': use one of none, magcache"),
        ({"schedule": "banana"}, "unknown schedule 'banana'"),
        ({"reuse_limit": 0.0}, "reuse_limit is 0.0"),
        ({"reuse_run": 0}, "reuse_run 0 must be 1 or more"),
        ({"reuse_first": 1.5}, "reuse_first 1.5 from 0 to 1"),
    ],
)
def test_settings_of_caches_that_make_no_sense_are_refused(given, says):
    with pytest.raises(UserError, match=says):
        SampleSettings(**given)
