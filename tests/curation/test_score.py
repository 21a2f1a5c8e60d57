"""Scores tell moving from still, sharp from blurred, steady from shaking; hashes find copies, thresholds drop clips."""

import cv2
import numpy as np
import pytest

from osjax.curation import duplicates, filter, score, stats, tables
from osjax.curation.blur import blur
from osjax.curation.isolate import Limits, Pool
from osjax.curation.text_area import text_area
from osjax.errors import UserError
from osjax.pages import clips
from tests.curation.conftest import picture, write


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Scores of clips by name."""
    folder, sharp = tmp_path_factory.mktemp("scored"), picture(24, 96, 128, 0, speed=1.0)
    shaking = np.roll(picture(24, 96, 128, 0, speed=0), 0, 1)
    shaking = np.stack([np.roll(image, 17 * (n % 2), 0) for n, image in enumerate(shaking)])
    clips = {
        "slow": sharp,
        "fast": picture(24, 96, 128, 0, speed=6.0),
        "still": picture(24, 96, 128, 0, speed=0.0),
        "blurred": np.stack([cv2.GaussianBlur(image, (0, 0), 6) for image in sharp]),
        "shaking": shaking,
        "other": picture(24, 96, 128, 5, speed=1.0),
        "small": np.stack([cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA) for image in sharp]),
    }
    found = {}
    for name, frames in clips.items():
        path = write(folder / f"{name}.mp4", frames, crf=12)
        (found[name],) = score.score({"path": str(path), "text": name}, score.Scoring())
    return found


def test_motion_grows_with_speed_and_is_zero_for_a_still(scored):
    motion = {name: row["motion"] for name, row in scored.items()}
    assert motion["still"] < 0.05 < motion["slow"] < motion["fast"]


def test_jitter_tells_a_shaking_camera(scored):
    jitter = {name: row["jitter"] for name, row in scored.items()}
    assert jitter["still"] < 1 < jitter["slow"] and 2 * jitter["slow"] < jitter["shaking"]


def test_blur_is_the_variance_of_the_laplacian_of_the_middle_of_five_frames(scored):
    assert scored["blurred"]["blur"] < 20 < 100 < scored["slow"]["blur"]
    frames = picture(5, 32, 48)
    want = sorted(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var() for image in frames)
    assert blur(frames) == pytest.approx(want[2])
    blurred = [*frames[:2], *(np.full_like(image, 90) for image in frames[2:])]  # three of five: the majority
    assert blur(blurred) == 0.0 < blur([*frames[:3], *blurred[3:]])


def test_copies_of_another_size_are_near_duplicates_and_other_clips_are_not(scored):
    names = ["slow", "other", "small"]
    found = duplicates.find(names, [scored[name]["hash"] for name in names])
    assert found == {"small": "slow"}


def test_duplicates_are_those_of_comparing_all_pairs():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (60, 24), dtype=np.uint8)
    for i in range(30, 60):  # copies with 0 to 12 bits changed
        codes[i] = codes[i - 30]
        for bit in rng.choice(192, size=(i - 30) % 13, replace=False):
            codes[i, bit // 8] ^= 1 << bit % 8
    names = [str(i) for i in range(60)]
    found = duplicates.find(names, [bytes(code).hex() for code in codes], 7)
    apart = np.unpackbits(codes[:, None] ^ codes[None], axis=2).sum(2)
    want = {str(i): str(i - 30) for i in range(30, 60) if apart[i, i - 30] <= 7}
    assert found == want and 10 < len(want) < 30
    assert duplicates.find(names, [bytes(code).hex() for code in codes], 0).keys() < want.keys()
    with pytest.raises(ValueError, match="distance 8"):
        duplicates.find(names, [], 8)


STAGES = (filter.Stage("motion", 1.0, 5.0), filter.Stage("blur", 20.0))


def clips_of(*values):
    return [{"path": f"{i}.mp4", "text": "", "motion": m, "blur": b, "hash": h} for i, (m, b, h) in enumerate(values)]


def test_each_stage_drops_what_is_outside_its_thresholds_and_is_counted(tmp_path):
    a, b = "0" * 48, "f" * 48
    rows = clips_of((2.0, 30.0, a), (0.5, 30.0, b), (6.0, 30.0, b), (1.0, 20.0, a), (5.0, 19.9, b), (None, 30.0, b))
    tables.write(tmp_path / "in.parquet", rows)
    outcome, counts = filter.run(tmp_path / "in.parquet", tmp_path / "out.parquet", filter.Filtering(STAGES))
    assert (outcome.kept, outcome.dropped) == (1, 5)
    assert [vars(count) for count in counts] == [
        {"stage": "motion", "kept": 3, "dropped": 3},
        {"stage": "blur", "kept": 2, "dropped": 1},
        {"stage": "duplicate", "kept": 1, "dropped": 1},
    ]
    reasons = [row["reason"].replace(str(tmp_path), "") for row in tables.rows(outcome.dropped_table)]
    assert reasons == [
        "motion 0.5 below 1",
        "motion 6 above 5",
        "near-duplicate of /0.mp4",
        "blur 19.9 below 20",
        "motion was not measured",
    ]
    loose = filter.Filtering((filter.Stage("motion"),), None)
    assert filter.run(tmp_path / "in.parquet", tmp_path / "all.parquet", loose)[0].kept == 5


def test_a_table_without_rows_is_said_to_have_none(tmp_path):
    tables.write(tmp_path / "in.parquet", clips_of((1.0, 1.0, ""))[:0] or [{"path": "a", "text": ""}])
    tables.merge(tmp_path / "empty.parquet", [tmp_path / "in.parquet"], kept=False)
    with pytest.raises(UserError, match="has no rows"):
        filter.run(tmp_path / "empty.parquet", tmp_path / "out.parquet", filter.Filtering(STAGES))


def test_the_page_shows_histograms_stages_and_frames_and_escapes_what_it_is_given(scored, tmp_path):
    rows = [{**row, "text": "<script>alert(1)</script>"} for row in scored.values()]
    tables.write(tmp_path / "in.parquet", rows)
    with Pool(Limits(workers=1)) as pool:
        held = stats.summary(tmp_path / "in.parquet", pool, 3, "/")
    assert held.count == len(rows) and set(held.numbers) > {"motion", "blur", "words of the caption"}
    clips.write(tmp_path / "page.html", held.name, held.numbers, held.shown, held.reasons, [("<b>", 7, 3)])
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64") == 3 and page.count("data:image/png;base64") == 1
    assert "&lt;script&gt;alert" in page and "<script>" not in page and "<td>&lt;b&gt;</td><td>7</td><td>3</td>" in page


def test_metrics_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="metrics beauty: choose from motion"):
        score.Scoring(("beauty",))


class Brightness:
    """A judge without weights."""

    def __call__(self, frames_NHWC):
        assert frames_NHWC.dtype == np.uint8 and len(frames_NHWC) == 3
        return frames_NHWC.mean((1, 2, 3))

    def fingerprint(self):
        return "mean"


def test_a_judge_scores_the_first_middle_and_last_of_the_sampled_frames(tmp_path):
    rising = np.stack([np.full((64, 64, 3), 10 * n, np.uint8) for n in range(20)])
    rows = [{"path": str(write(tmp_path / f"{n}.mp4", rising // (n + 1), crf=1)), "text": ""} for n in range(2)]
    rows.append({"path": "gone.mp4", "reason": "broken"})
    options = score.Scoring(("blur", "aesthetic"))
    with Pool(Limits(workers=1)) as pool:
        made = score.work(rows, pool, options, {"aesthetic": Brightness()})
        with pytest.raises(ValueError, match="judges of nothing"):
            score.work(rows, pool, options)
    assert made[0]["aesthetic"] == pytest.approx(100, abs=6) and made[1]["aesthetic"] == pytest.approx(50, abs=4)
    assert "blur" in made[0] and not {"shown", "shown_size"} & made[0].keys() and made[2] == rows[2]


def test_text_is_read_where_it_stands():
    pytest.importorskip("rapidocr")
    image = np.full((120, 480, 3), 255, np.uint8)
    cv2.putText(image, "HELLO WORLD", (30, 80), cv2.FONT_HERSHEY_SIMPLEX, 2, (0, 0, 0), 5)
    assert text_area([np.full((120, 480, 3), 255, np.uint8)]) == 0.0
    assert 0.1 < text_area([image]) < 0.9
