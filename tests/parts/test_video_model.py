"""The attention of a video model follows the devices where nobody names one."""

from dataclasses import replace

import pytest
from jax.sharding import AbstractMesh

from osjax.errors import UserError
from osjax.models.mmdit.config import MMDiTConfig
from osjax.parallel import mesh as device_mesh
from osjax.parts import video_model


@pytest.mark.parametrize(
    "platform, sequence, heads, attention, kernel",
    [
        ("cpu", 1, 24, "blockwise", None),
        ("gpu", 1, 24, "flash", None),
        ("tpu", 4, 24, "ulysses", "flash"),
        ("gpu", 16, 24, "ulysses_ring", "flash"),
        ("cpu", 2, 6, "ulysses", "blockwise"),
    ],
)
def test_attention_follows_platform_heads_and_mesh(platform, sequence, heads, attention, kernel):
    fields = video_model.automatic_attention(platform, sequence, heads)
    assert (fields["attention"], fields.get("attention_kernel")) == (attention, kernel)


def test_auto_is_resolved_by_the_mesh_and_a_name_stays():
    here = device_mesh.make(data=1, fsdp=2, sequence=4, tensor=1)
    there = AbstractMesh((8, 8, 1, 1), ("data", "fsdp", "sequence", "tensor"))
    assert video_model.resolved("mmdit", {"attention": "auto"}, "model", here).attention == "ulysses"
    assert video_model.resolved("mmdit", {"attention": "auto"}, "model", here).attention_kernel == "blockwise"
    assert video_model.resolved("mmdit", {"attention": "auto"}, "model", there).attention == "flash"
    assert video_model.resolved("mmdit", {"attention": "ring"}, "model", there).attention == "ring"
    with pytest.raises(UserError, match="family is 'wan'"):
        video_model.resolved("wan", {"attention": "auto"}, "model", there)


@pytest.mark.parametrize(
    "trained, platform, sequence, here",
    [
        ("dense", "cpu", 1, "dense"),
        ("blockwise", "gpu", 1, "blockwise"),
        ("flash", "gpu", 1, "flash"),
        ("flash", "cpu", 1, "blockwise"),
        ("ulysses", "gpu", 1, "flash"),
        ("ulysses", "gpu", 4, "ulysses"),
        ("ring", "gpu", 4, "ring"),
        ("ring", "cpu", 4, "ulysses"),
        ("dense", "gpu", 5, "ulysses_ring"),
    ],
)
def test_a_trained_model_keeps_its_attention_where_it_can_run(trained, platform, sequence, here):
    cfg = replace(MMDiTConfig(), attention=trained)
    assert video_model.suited(cfg, platform, sequence).attention == here
