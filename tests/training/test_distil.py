"""What a student learns, against the guidance and the steps of sampling with its teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.flow import guidance, sampler, shift
from osjax.models import lora, velocity
from osjax.training import distil
from osjax.types import LatentBatch
from tests.sampling import tiny

B, T, H, W = 2, 2, 4, 4
NULL = np.full((4, 16), 0.3, np.float32), np.full(16, -0.2, np.float32)


@pytest.fixture(scope="module")
def teacher():
    return tiny.parts()[:2]


@pytest.fixture(scope="module")
def student(teacher):
    """Told both scales, and so far the teacher whatever it is told."""
    module, params, _ = tiny.parts({"guidance_embed": True, "guidance_img_embed": True})
    new = {name: params[name] for name in ("guidance_in", "guidance_img_in")}
    for one in new.values():
        one["out_layer"] = jax.tree.map(np.zeros_like, one["out_layer"])
    return module, {**teacher[1], **new}


@pytest.fixture(scope="module")
def batch():
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = (B, T, H, W, 8), (B, 4, 16), (B, 16), (B, T, H, W, 9)
    return LatentBatch(*(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)))


def lesson(teacher, what, conditioned=True, scales=None):
    return distil.Lesson(teacher[0], what, NULL, conditioned, scales)


def loss(module, params, learns, batch, **kwargs):
    fn = distil.make_loss(module, learns, lambda rows, key: rows, **kwargs)
    return jax.jit(fn)(params, batch, jax.random.key(7))[0]


def test_the_target_of_guidance_is_what_the_sampler_sums_up_to(teacher, batch):
    module, params = teacher
    t_B, scales = jnp.array([0.3, 0.8]), jnp.array([[2.0, 3.0], [2.0, 3.0]])
    got = distil.guided(lesson(teacher, distil.Scales((1.0, 3.0))), params, batch, t_B, scales)
    txt, vec = (jnp.broadcast_to(x, like.shape) for x, like in zip(NULL, batch[1:3], strict=True))
    rows = batch, batch._replace(txt_BMC=txt, y_vec_BC=vec)
    rows += (rows[1]._replace(cond_BTHWC=jnp.zeros_like(batch.cond_BTHWC)),)
    shares = guidance.weights(1, 1, 2.0, 3.0).coefficients()[0, :, 0]
    want = sum(share * velocity.of_batch(module, params, row, t_B) for share, row in zip(shares, rows, strict=True))
    np.testing.assert_allclose(got, want, atol=1e-4)
    other = distil.guided(lesson(teacher, distil.Scales((1.0, 3.0))), params, batch, t_B, scales[:, ::-1])
    assert np.abs(other - want).max() > 1e-2


def test_without_conditions_the_third_prediction_is_the_second(teacher, batch):
    plain = batch._replace(cond_BTHWC=jnp.zeros_like(batch.cond_BTHWC))
    t_B, scales = jnp.array([0.3, 0.8]), jnp.array([[2.0, 3.0], [2.0, 3.0]])
    two, three = (
        distil.guided(lesson(teacher, distil.Scales((1.0, 3.0)), conditioned), teacher[1], plain, t_B, scales)
        for conditioned in (False, True)
    )
    np.testing.assert_allclose(two, three, atol=1e-5)


def test_a_student_that_is_its_teacher_has_only_the_guidance_to_learn(student, teacher, batch):
    params = distil.Taught(teacher[1], student[1])
    none = distil.Scales((1.0, 1.0), (1.0, 1.0))
    assert loss(student[0], params, lesson(teacher, none), batch) < 1e-9
    assert loss(student[0], params, lesson(teacher, distil.Scales((2.0, 2.0), (1.0, 1.0))), batch) > 1e-3
    assert loss(student[0], params, lesson(teacher, distil.Scales((1.0, 1.0), (2.0, 2.0))), batch) > 1e-3


def test_the_student_is_told_the_scales_that_its_target_is_made_with(student, batch):
    scales = distil.Scales((2.0, 5.0), (1.0, 1.5)).draw(jax.random.key(0), 64)
    assert scales.shape == (64, 2) and 2 <= scales[:, 0].min() < 3 < scales[:, 0].max() <= 5
    assert 1 <= scales[:, 1].min() < scales[:, 1].max() <= 1.5
    one = distil.Scales((2.0, 5.0)).draw(jax.random.key(0), 8)
    np.testing.assert_array_equal(one[:, 0], one[:, 1])
    np.testing.assert_array_equal(distil.told(student[0], scales), scales)
    alone, *_ = tiny.parts({"guidance_embed": True})
    np.testing.assert_array_equal(distil.told(alone, scales), scales[:, 0])
    assert distil.told(tiny.parts()[0], scales) is None


def test_no_gradient_reaches_the_teacher_and_the_scales_layers_learn(student, teacher, batch):
    learns = lesson(teacher, distil.Scales((2.0, 4.0), (1.0, 2.0)))
    fn = distil.make_loss(student[0], learns, lambda rows, key: rows)
    grads = jax.grad(lambda params: fn(params, batch, jax.random.key(1))[0])(distil.Taught(teacher[1], student[1]))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads.teacher))
    assert np.any(grads.student["guidance_in"]["out_layer"]["kernel"])
    assert np.any(grads.student["guidance_img_in"]["out_layer"]["kernel"])


def test_a_part_of_one_small_step_is_the_teachers_own_step(teacher, batch):
    params = distil.Taught(teacher[1], teacher[1])
    # The teacher samples with guidance 1, so its student of as many steps is itself.
    assert loss(teacher[0], params, lesson(teacher, distil.Parts(4, 1)), batch) < 1e-8
    assert loss(teacher[0], params, lesson(teacher, distil.Parts(4, 3)), batch) > 1e-5


def test_adapters_learn_from_the_model_beneath_them(teacher, batch):
    module, params = teacher
    made = tiny.nn.unbox(
        lora.create(lora.LoRAConfig(2, 2.0), tiny.models.abstract_params(module.cfg), jax.random.key(0))
    )
    beneath = lora.Adapted(params, made)
    assert loss(module, beneath, lesson(teacher, distil.Parts(4, 1)), batch) < 1e-8
    moved = beneath.given(jax.tree.map(lambda x: x + 0.1, made))
    assert loss(module, moved, lesson(teacher, distil.Parts(4, 1)), batch) > 1e-4


def test_the_samplers_times_are_among_those_of_the_parts():
    parts = distil.Parts(4, 5, alpha=4.0)
    np.testing.assert_array_equal(parts.times(25, 2)[::5], shift.schedule(4, 25, 2, alpha=4.0))
    assert len(parts.times(25, 2)) == 21
    assert np.abs(distil.Parts(4, 5).times(25, 2)[::5] - shift.schedule(4, 25, 2, alpha=4.0)).max() > 0.1


def test_what_a_perfect_student_of_few_steps_does_is_what_its_teacher_does_in_many(batch):
    """On a path with a known velocity the targets of a part, chained, end where the teacher's small steps end."""
    times = distil.Parts(2, 4).times(25, 2)

    def small(x, first, last):
        for a, b in zip(times[first:last], times[first + 1 : last + 1], strict=True):
            x = x + (b - a) * np.sin(3 * a) * x
        return x

    x = np.array([1.0, -2.0])
    ends = [small(x, n, 4) for n in range(4)]  # the student's way from any n to the part's end is that of small steps
    for n in range(3):
        further = x + (times[n + 1] - times[n]) * np.sin(3 * times[n]) * x
        np.testing.assert_allclose(small(further, n + 1, 4), ends[n])
    calls, ends = sampler.plan(times[::4])
    assert calls.dt_F[: ends[-1]].tolist() == np.diff(times[::4]).tolist()  # one straight step a part
