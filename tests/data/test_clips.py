"""Procedural clips: vocabulary, split, motion, and the files that are written."""

import time
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from osjax.data import clips, table, video


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_held_out_combinations_leave_every_word_in_training(seed):
    training, held_out = clips.split(seed)
    assert len(clips.combinations()) == 96 and len(held_out) == 24
    assert not set(training) & set(held_out) and set(training) | set(held_out) == set(clips.combinations())
    for place, fewest in ((0, 10), (1, 16), (2, 16)):
        assert min(Counter(c[place] for c in training).values()) >= fewest
        assert len({c[place] for c in held_out}) == len({c[place] for c in training})


def test_the_split_depends_on_the_seed_alone():
    assert clips.split(3) == clips.split(3) != clips.split(0)


def test_clips_are_the_same_for_a_seed_and_others_for_another():
    a, b, c = (clips.specs(5, seed, clips.combinations()) for seed in (1, 1, 2))
    assert a == b != c
    np.testing.assert_array_equal(clips.render(a[0], 32), clips.render(b[0], 32))


def test_specifications_go_through_all_combinations():
    count = Counter((s.colour, s.shape, s.direction) for s in clips.specs(192, 0, clips.combinations()))
    assert set(count.values()) == {2}


def _object(spec, size, frames=8):
    """Cover of the object: the same clip in two colours differs in the object only."""
    white, red = (clips.render(replace(spec, colour=c), size, frames).astype(int)[..., 1] for c in ("white", "red"))
    return (white - red) / (clips.COLOURS["white"][1] - clips.COLOURS["red"][1])


def test_objects_stay_in_frame_are_big_and_move_as_the_caption_says():
    for spec in clips.specs(96, 7, clips.combinations()):
        cover = _object(spec, 48)
        area = cover.sum((1, 2))
        assert area.min() > 0.96 * area.max(), spec  # nothing is cut off at the edge but a corner's soft rim
        assert 0.03 < cover.mean() < 0.2, spec
        y, x = np.mgrid[0:48, 0:48] / 48
        centre = np.stack([(cover * x).sum((1, 2)), (cover * y).sum((1, 2))], -1) / area[:, None]
        way = centre[-1] - centre[0]
        np.testing.assert_allclose(way, np.array(clips.DIRECTIONS[spec.direction]) * spec.travel, atol=0.01)
        assert spec.travel >= clips.SPEEDS[1][0]
        assert spec.caption.startswith(f"a {spec.colour} {spec.shape} moves {spec.direction} over a ")


def test_a_larger_rendering_shows_the_same_clip():
    one, other = clips.specs(2, 0, clips.combinations())
    halved = clips.render(one, 128).reshape(8, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - clips.render(one, 64)).mean() < 1
    assert np.abs(halved - clips.render(other, 64)).mean() > 5


def test_written_clips_are_listed_with_the_columns_of_the_original(tmp_path):
    chosen = clips.specs(3, 0, clips.combinations())
    path = clips.write_clips(tmp_path / "clips", chosen, 32, 8, 8)
    assert path.read_text().splitlines()[0] == "path,text,num_frames,height,width,aspect_ratio,resolution,fps,motion"
    rows = table.read(path)
    assert [row["text"] for row in rows] == [spec.caption for spec in chosen]
    assert (rows[0]["num_frames"], rows[0]["resolution"], rows[0]["fps"]) == (8, 1024, 8)
    for row, spec in zip(rows, chosen, strict=True):
        assert float(row["motion"]) == spec.motion
        error = np.abs(video.decode(row["path"]).astype(int) - clips.render(spec, 32)).mean()
        assert error < 4, spec


def test_a_clip_takes_well_under_a_tenth_of_a_second(tmp_path):
    # 400 clips in half a minute, with room for a busy machine.
    chosen = clips.specs(20, 0, clips.combinations())
    start = time.process_time()
    clips.write_clips(tmp_path, chosen, 64, 8, 8)
    assert (time.process_time() - start) / len(chosen) < 0.1


def test_a_higher_motion_score_goes_farther_and_every_background_has_its_tint():
    specs = clips.specs(400, 3, clips.combinations())
    ways = [[s.travel for s in specs if s.motion == score] for score in (1, 4, 7)]
    assert max(ways[0]) < min(ways[1]) and max(ways[1]) < min(ways[2])
    assert {(s.background, s.tint) for s in specs} == set(product(clips.BACKGROUNDS, clips.TINTS))
    warm, cold = (clips.render(replace(specs[0], tint=tint), 32)[..., ::2].astype(int) for tint in ("warm", "cold"))
    edge = np.s_[:, 0, :]  # of the picture: no object there
    assert (warm[edge][..., 0] > warm[edge][..., 1]).all() and (cold[edge][..., 0] < cold[edge][..., 1]).all()
