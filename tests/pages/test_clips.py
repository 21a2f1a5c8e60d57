"""The page of a table of clips takes any table."""

import io
import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from osjax.__main__ import main
from osjax.curation import tables
from osjax.data import clips as made_clips
from osjax.pages import clips, figures

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(), max_size=60)
FEW = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.lists(FINITE, min_size=1, max_size=50))
@settings(max_examples=100, deadline=None)
def test_a_histogram_counts_every_finite_number_once(values):
    counts, edges = clips.histogram(values)
    assert counts.sum() == len(values) and len(counts) == clips.BINS
    assert np.isfinite(edges).all() and (np.diff(edges) > 0).all()


@pytest.mark.parametrize(
    "values",
    [
        [8.0] * 9,
        [8.0, np.nextafter(8.0, 9)],
        [1e16, 1e16 + 2],
        [5e-324, 0.0],
        [1.7e308, -1.7e308],
        [0.0],
        [3, 3 + 1e-13],
    ],
)
def test_numbers_of_equal_clips_have_a_histogram(values):
    assert clips.histogram(values)[0].sum() == len(values)
    if values[:2] == [1e16, 1e16 + 2]:  # the control
        with pytest.raises(ValueError, match="Too many bins"):
            np.histogram(values, 40)


@given(st.dictionaries(TEXT, st.lists(FINITE, min_size=1, max_size=9), max_size=5), TEXT, TEXT, TEXT)
@FEW
def test_a_page_takes_any_columns_names_and_reasons(tmp_path, numbers, title, name, reason):
    rows = [{"path": f"/clips/{name}", "text": reason, "jpeg": b"x"}, {"path": name, "reason": reason}]
    clips.write(tmp_path / "page.html", title, numbers, rows, Counter({reason: 2}), [(reason, 1, 0)] if reason else ())
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<script") == 0 and text.count("<figure") == 2


def test_columns_with_dollars_and_hundreds_of_columns_are_shown(tmp_path):
    numbers = {"$x^$": [1.0], r"$\frac{": [2.0], "a\nb": [3.0], "<script>": [4.0], "\ud800": [5.0]}
    numbers |= {f"column {n}": [float(n)] for n in range(clips.MOST)}
    clips.write(tmp_path / "page.html", "t", numbers, [], Counter())
    assert "5 more columns" in (tmp_path / "page.html").read_text()


def test_clips_of_equal_length_and_a_file_name_of_other_bytes_go_through_the_whole_pipeline(tmp_path, capfd):
    folder = tmp_path / "videos"
    made_clips.write_clips(folder, made_clips.specs(3, 0, made_clips.combinations()), 32, 8, 8)
    for path in folder.glob("*.csv"):
        path.unlink()
    os.link(folder / "00000.mp4", os.path.join(os.fsencode(folder), b"caf\xe9.mp4"))
    free = [f"--config.probe.{name}=0" for name in ("min_seconds", "min_bits_per_pixel", "min_fps")]
    free += ["--config.probe.drop_profiles=()", "--config.steps=probe,stats"]
    argv = ["data", "run", f"--config.source={folder}", f"--config.out={tmp_path / 'out'}", *free]
    assert main(argv) == 0, capfd.readouterr().err
    (dropped,) = tables.read(tmp_path / "out" / "dropped.parquet")
    assert dropped["reason"].endswith(r"caf\udce9.mp4 is not UTF-8: rename the file")
    assert "3 clips" in (tmp_path / "out" / "2-stats.html").read_text()


def test_curves_of_a_run_are_drawn_where_losses_are_missing(tmp_path):
    lines = [{"stage": "a", "step": n, "loss": None if n == 2 else 1.0, "steps_per_s": "x"} for n in range(5)]
    figures.plots(tmp_path / "curves.png", {"a": [*lines, {"stage": "a", "step": 5}]})
    figures.contact_sheet(tmp_path / "sheet.jpg", [np.zeros((2, 8, 8, 3), np.uint8)], ["a"])
    assert Image.open(io.BytesIO((tmp_path / "curves.png").read_bytes())).format == "PNG"
    assert Image.open(tmp_path / "sheet.jpg").format == "JPEG"
    assert sorted(os.listdir(tmp_path)) == ["curves.png", "sheet.jpg"]
