"""The sampling pipeline: seeds, company, references, meshes."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from osjax.errors import UserError
from osjax.flow.solvers import SOLVERS
from osjax.parallel import mesh
from osjax.parts.pipeline import from_checkpoint
from osjax.sampling.denoise import advance
from osjax.sampling.pipeline import to_float, to_uint8
from tests.golden import relative_error
from tests.sampling import tiny, trained


@pytest.fixture(scope="module")
def pipe():
    return tiny.pipeline()


PROMPTS = ["a red circle", "a blue square", "a green cross"]


def test_a_video_is_the_same_bit_for_bit_whatever_its_company_and_order(pipe):
    together = pipe(PROMPTS, seeds=[3, 4, 5])
    assert together.videos_BTHWC.shape == (3, 8, 32, 32, 3) and together.videos_BTHWC.dtype == np.uint8
    turned = pipe(PROMPTS[::-1], seeds=[5, 4, 3])
    alone = pipe(PROMPTS[1:2], seed=4)
    np.testing.assert_array_equal(turned.latents_BTHWC[::-1], together.latents_BTHWC)
    np.testing.assert_array_equal(turned.videos_BTHWC[::-1], together.videos_BTHWC)
    np.testing.assert_array_equal(alone.latents_BTHWC[0], together.latents_BTHWC[1])
    other = pipe(PROMPTS[1:2], seed=6)
    assert np.abs(other.latents_BTHWC - alone.latents_BTHWC).max() > 0.1


def test_samples_of_a_prompt_take_the_seeds_that_follow(pipe):
    made = pipe(PROMPTS[:2], samples=2, seed=7)
    assert [(row["prompt"], row["seed"]) for row in made.rows] == [(p, s) for p in PROMPTS[:2] for s in (7, 8)]
    again = pipe(PROMPTS[1:2], seed=8)
    np.testing.assert_array_equal(made.latents_BTHWC[3], again.latents_BTHWC[0])
    assert np.abs(made.latents_BTHWC[2] - again.latents_BTHWC[0]).max() > 0.1


def test_progress_is_told_of_every_video_as_it_is_made(pipe):
    passed = []

    def progress(numbers):
        for number in numbers:
            yield number
            passed.append(number)

    made = pipe(PROMPTS, progress=progress)
    assert passed == [0, 1, 2]
    np.testing.assert_array_equal(made.latents_BTHWC, pipe(PROMPTS).latents_BTHWC)


def test_a_keyword_that_nobody_knows_is_refused_as_python_does_it(pipe):
    with pytest.raises(TypeError, match="'ofload': there are mesh, offload, int8, image"):
        tiny.pipeline(ofload=True)
    with pytest.raises(TypeError, match="'step'"):
        pipe(["a"], step=8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_progress_by_step_gives_the_same_bits(pipe, solver):
    steps, settings = [], tiny.SETTINGS.changed(solver=solver, steps=4)
    jobs = pipe.jobs(settings, PROMPTS[:1])
    (_, stepped), whole = (
        next(pipe.stream(jobs, settings, on_step))
        for on_step in (lambda state: steps.append(np.array(state.clip)), None)
    )
    assert len(steps) == settings.steps
    gap = [np.abs(clip[0] - whole[1]).max() for clip in steps]  # what a step predicts nears what comes out
    assert gap[-1] < 1e-4 < gap[0]
    np.testing.assert_array_equal(stepped, whole[1])


@pytest.mark.parametrize("read", ["given", "from a workdir"])
def test_a_listener_costs_no_second_program(pipe, read, tmp_path):
    # Arrays that were read to a device are bound to it, those that are given are not.
    pipe = pipe if read == "given" else from_checkpoint(trained.write(tmp_path))
    jobs, before = pipe.jobs(tiny.SETTINGS, PROMPTS[:1]), advance._cache_size()
    next(pipe.stream(jobs, tiny.SETTINGS.changed(frames=12 if read == "given" else 16), lambda state: None))
    assert advance._cache_size() == before + 1


def test_a_listener_that_raises_ends_the_loop_and_the_next_video_is_as_it_would_have_been(pipe):
    def stop(state):
        raise InterruptedError

    jobs = pipe.jobs(tiny.SETTINGS, PROMPTS[:1])
    with pytest.raises(InterruptedError):
        next(pipe.stream(jobs, tiny.SETTINGS, stop))
    np.testing.assert_array_equal(next(pipe.stream(jobs, tiny.SETTINGS))[1], pipe(PROMPTS[:1]).latents_BTHWC[0])


def test_prompt_negative_and_reference_all_change_the_result(pipe):
    frame = np.full((1, 1, 32, 32, 3), 200, np.uint8)
    base = pipe(["a"], refs=frame, mode="i2v_head").latents_BTHWC
    for prompt, ref, changes in (("b", frame, {}), ("a", frame // 4, {}), ("a", frame, {"negative": "blurry"})):
        assert np.abs(pipe([prompt], refs=ref, mode="i2v_head", **changes).latents_BTHWC - base).max() > 1e-3
    one_each = pipe(["a", "a"], refs=np.repeat(frame, 2, 0), mode="i2v_head", negatives=["blurry", ""]).latents_BTHWC
    np.testing.assert_array_equal(one_each[1], base[0])
    assert np.abs(one_each[0] - base[0]).max() > 1e-3


def test_guidance_in_a_part_of_the_steps_saves_calls_and_changes_the_video(pipe):
    whole = pipe(["a red circle"])
    part = pipe(["a red circle"], guidance_from=0.9, guidance_until=0.1)
    assert (pipe.calls(pipe.settings), pipe.calls(pipe.settings.changed(guidance_from=0.9))) == (6, 5)
    assert np.abs(whole.latents_BTHWC - part.latents_BTHWC).max() > 1e-3
    assert (part.settings["guidance_from"], part.settings["guidance_until"]) == (0.9, 0.1)
    with pytest.raises(UserError, match="no step of 3 begins between the times 0.99 and 0.98"):
        pipe(["a red circle"], guidance_from=0.99, guidance_until=0.98)


def test_a_model_that_is_told_the_strength_takes_no_part_of_the_steps():
    told = tiny.pipeline({"guidance_embed": True})
    with pytest.raises(UserError, match="this model is told the strength of guidance"):
        told(["a red circle"], guidance_from=0.9)


def test_given_images_are_put_back_where_asked_and_repeated_frames_dropped(pipe):
    rng = np.random.RandomState(0)
    head, tail = (rng.randint(0, 256, (frames, 32, 32, 3), np.uint8) for frames in (3, 5))
    made = pipe(["a"], refs=[(head, tail)], mode="i2v_loop", put_back=True)
    ae = pipe._autoencoder
    for frame, latents in ((head[:1], made.latents_BTHWC[:, 0]), (tail[-1:], made.latents_BTHWC[:, -1])):
        want = ae.encode(to_float(frame)[None])[:, 0]
        np.testing.assert_array_equal(latents, want)
    left = pipe(["a"], refs=[(head, tail)], mode="i2v_loop")  # not causal: a still latent would stop the motion
    assert np.abs(left.latents_BTHWC[:, 0] - made.latents_BTHWC[:, 0]).max() > 0.01
    for mode, ref, kept in (("i2v_loop", (head, tail), slice(3, -3)), ("i2v_tail", tail, slice(0, -3))):
        whole = pipe(["a"], refs=[ref], mode=mode, frames=12).videos_BTHWC
        dropped = pipe(["a"], refs=[ref], mode=mode, frames=12, drop_padding=True).videos_BTHWC
        np.testing.assert_array_equal(dropped, whole[:, kept])


def test_modes_sizes_and_references_must_fit(pipe):
    ref = np.zeros((1, 1, 32, 32, 3), np.uint8)
    for says, changes in (
        ("needs one reference a prompt", {"mode": "i2v_head"}),
        ("takes no reference", {"refs": ref}),
        ("2 refs for 1 prompts", {"mode": "i2v_head", "refs": np.repeat(ref, 2, 0)}),
        ("nearest valid height is 32", {"height": 30}),
        ("nearest valid number is 8", {"frames": 9}),
        ("4 frames decode to 1 in the autoencoder.s tiles: ask for 8", {"frames": 4}),
        ("unknown condition mode", {"mode": "i2v"}),
        ("nothing to generate", {"mode": "v2v_head", "refs": ref}),
        ("nothing to generate", {"mode": "i2v_head", "refs": ref, "frames": 1}),
        ("needs 32 frames, a reference has 1", {"mode": "v2v_head", "refs": ref, "frames": 36}),
        ("needs an image model", {"mode": "t2i2v"}),
        ("seed is -1", {"seed": -1}),
        ("both height and width", {"height": None}),
        ("guidance is -1", {"guidance": -1.0}),
        ("steps is 0", {"steps": 0}),
    ):
        with pytest.raises(UserError, match=says):
            pipe(["a"], **changes)
    with pytest.raises(UserError, match="list of at least one"):
        pipe("a red circle")


def test_offloaded_weights_leave_the_device_and_change_nothing(pipe):
    waiting = tiny.pipeline(offload=True)
    with waiting._params.on_device() as params:
        leaf = jax.tree.leaves(params)[0]
    assert leaf.is_deleted() and all(isinstance(x, np.ndarray) for x in jax.tree.leaves(waiting._params._params))
    np.testing.assert_array_equal(waiting(["a"]).videos_BTHWC, pipe(["a"]).videos_BTHWC)


@pytest.mark.parametrize("sizes", [{"fsdp": 2, "sequence": 2, "tensor": 2}, {"data": 2, "sequence": 4}], ids=str)
def test_a_mesh_gives_the_latents_of_one_device(pipe, sizes):
    spread = tiny.pipeline(mesh=mesh.make(**{"data": 1, **sizes}))
    frame = np.full((32, 32, 3), 200, np.uint8)
    want = pipe(PROMPTS, refs=[frame] * 3, mode="i2v_head").latents_BTHWC
    got = spread(PROMPTS, refs=[frame] * 3, mode="i2v_head").latents_BTHWC
    assert relative_error(got, want) < 1e-4
    assert relative_error(got[1:], want[:2]) > 1e-2
    with spread._params.on_device() as params:
        kernel = params["single_blocks"]["mlp_in"]["kernel"]
    assert kernel.sharding.num_devices == 8 and kernel.addressable_shards[0].data.size < kernel.size
    with pytest.raises(UserError, match="do not divide over sequence"):
        spread(PROMPTS, frames=12, height=24, width=8)


def test_first_frames_come_from_an_image_model_that_is_freed(pipe):
    made = []

    def image():
        made.append(tiny.pipeline({"cond_embed": False, "guidance_embed": True}))
        return made[-1]

    both = tiny.pipeline(image=image)
    settings = {"image_resolution": "64px", "image_steps": 2}
    result = both(["a", "b"], mode="t2i2v", **settings)
    assert len(made) == 1 and all(x.is_deleted() for x in jax.tree.leaves(made[0]._params._params))
    stills = tiny.pipeline({"cond_embed": False, "guidance_embed": True})
    small = dataclasses.replace(tiny.SETTINGS, frames=1, height=64, width=64, steps=2, guidance=4.0)
    frames = [
        np.asarray(Image.fromarray(video[0]).resize((32, 32), Image.Resampling.BICUBIC))
        for video in stills(["a", "b"], settings=small).videos_BTHWC
    ]
    want = pipe(["a", "b"], refs=frames, mode="i2v_head")
    np.testing.assert_array_equal(result.latents_BTHWC, want.latents_BTHWC)
    assert np.abs(pipe(["a", "b"], refs=frames[::-1], mode="i2v_head").latents_BTHWC - want.latents_BTHWC).max() > 1e-3


def test_pixels_survive_the_way_to_floats_and_back():
    values = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8(to_float(values)), values)


def test_words_that_the_text_encoder_leaves_out_are_told_each_time(pipe, caplog):
    long = "a red circle moves " + "slowly " * 100 + "left"
    for _ in range(2):
        pipe.jobs(tiny.SETTINGS, [long, long, "a red circle"], negatives=["", "", "blur"], samples=3)
    told = [record.getMessage() for record in caplog.records]
    says = "longer than the text encoder's 4 words; cut is 'slowly slowly"
    assert len(told) == 2 and all(says in one for one in told)
    assert max(map(len, told)) < 400
    caplog.clear()
    pipe.jobs(tiny.SETTINGS, ["a red circle moves"])
    assert not caplog.records
