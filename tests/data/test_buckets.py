"""Size tables and bucket choice against the original's."""

import math

import pytest

from osjax.data import buckets, caption
from osjax.errors import UserError
from tests import golden

ASPECT, BUCKETS = golden.read_json("data_aspect"), golden.read_json("data_buckets")
SAMPLES = [(t, h, w, float(fps)) for t, h, w, fps in BUCKETS["samples_T_H_W_fps"]]
SEED = 42


def _rules(config):
    """{resolution: {frames: Rule}} of the original's (probability, batch) or ((keep, skip), batch)."""

    def rule(probability, batch):
        if isinstance(probability, list):
            return buckets.Rule(probability[0], batch, skip=probability[1])
        return buckets.Rule(probability, batch)

    return {name: {int(t): rule(*entry) for t, entry in entries.items()} for name, entries in config.items()}


def _found(entry, skip_draws=True):
    found = buckets.Buckets(_rules(entry["config"]), entry["D"], entry["fps_max"])
    out = []
    for i, sample in enumerate(SAMPLES):
        b = found.find(*sample, seed=SEED + i * found.count if skip_draws else SEED)
        out.append(b and [b.resolution, b.num_frames, b.aspect, *found.shape(b), found.batch_size(b)])
    return found, out


def test_all_size_tables_match_the_original_in_order():
    for want in ASPECT["tables"]:
        got = buckets.sizes(buckets.pixels(want["resolution"]), want["D"], want["training"])
        assert [(k, list(v)) for k, v in got.items()] == list(want["sizes_in_dict_order"].items()), want["resolution"]
    # Inference tables are neither nudged nor thinned out.
    assert buckets.sizes(65536, 16, training=True) != buckets.sizes(65536, 16, training=False)


def test_resolution_settings_choose_one_aspect():
    for want in ASPECT["settings"]:
        assert buckets.pixels(want["name"]) == want["pixels"]
        assert {k: list(v) for k, v in buckets.table(want["name"]).items()} == want["table"]


def test_the_closest_aspect_matches_the_original():
    names = buckets.sizes(buckets.pixels("256px"), 16)
    assert [buckets.closest(h, w, names) for h, w, _ in ASPECT["closest_ratio"]] == [
        name for _, _, name in ASPECT["closest_ratio"]
    ]
    assert {name: buckets.ratio(name) for name in ASPECT["ratio_values"]} == ASPECT["ratio_values"]


def test_frame_rates_are_reduced_by_whole_factors():
    for fps, fps_max, rate, interval in ASPECT["map_target_fps"]:
        assert buckets.reduce_fps(float(fps), fps_max) == (rate, interval)


def test_captions_name_frame_rate_and_motion():
    for case in BUCKETS["training_text"]:
        motion = float(case["vmaf_score"]) if case["vmaf"] else math.nan
        assert caption.training_caption("a cat.", float(case["fps"]), case["fps_max"], motion) == case["text"]


@pytest.mark.parametrize("name", BUCKETS["configs"])
def test_every_sample_finds_the_bucket_of_the_original(name):
    entry = BUCKETS["configs"][name]
    found, got = _found(entry)
    assert found.count == entry["num_bucket"]
    assert list(found.rules) == entry["resolution_order"]
    assert got == entry["results_name_T_aspect_thw_batch"]


def test_other_draws_find_other_buckets():
    entry = BUCKETS["configs"]["tuple_probabilities"]
    assert _found(entry, skip_draws=False)[1] != entry["results_name_T_aspect_thw_batch"]


def test_an_image_with_a_frame_rate_above_the_cap_matches_nothing():
    found = buckets.Buckets({"256px": {1: buckets.Rule(1.0, 2), 5: buckets.Rule(1.0, 2)}}, fps_max=24)
    assert found.find(1, 256, 256, math.nan, seed=0) is not None
    assert found.find(1, 256, 256, 25.0, seed=0) is None


def test_every_shape_lists_all_buckets():
    config = {"256px": {1: buckets.Rule(1.0, 7), 33: buckets.Rule(1.0, 2)}}
    want = {(b, t, h, w, c) for b, c, t, h, w in ASPECT["bucket_to_shapes"]}
    assert set(buckets.Buckets(config).every_shape()) == want


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: buckets.pixels("256"), "256px or 720p"),
        (lambda: buckets.pixels("big"), "'big'"),
        (lambda: buckets.table("256px_ar7:1"), "ar16:9"),
        (lambda: buckets.image_size("256px", "7:1"), "16:9"),
    ],
)
def test_an_unknown_size_is_refused_with_what_is_known(call, words):
    with pytest.raises(UserError, match=words):
        call()
