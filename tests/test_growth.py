"""The measure of how cost grows: its exponents, and its curves of data and checkpoints at small sizes."""

import json

import pytest

from tests.measures import growth


@pytest.mark.parametrize("power", [0, 1, 2])
def test_the_exponent_of_a_power_is_that_power_whatever_the_small_sizes_cost(power):
    sizes = (10, 100, 1000, 10_000)
    assert growth.exponent(sizes, [5.0, 5.0, *(3 * n**power for n in sizes[2:])]) == pytest.approx(power)


def test_curves_of_clips_and_checkpoints_are_told_with_what_they_may_be(capsys, tmp_path):
    status = growth.main(["rows", "bytes", "--small", f"--json={tmp_path / 'told.json'}"])
    out, err = capsys.readouterr()
    assert "| rows: clips of a data set | 1,000 | 4,000 | 16,000 |" in out and "megabytes of state" in out
    told = json.loads((tmp_path / "told.json").read_text())
    assert told.keys() == {"rows", "bytes"} and all(x > 0 for x in told["bytes"]["save"])
    above = [name for name in growth.CURVES["rows"].most if f"rows, {name}" in err]
    values, most = told["rows"], growth.CURVES["rows"].most
    assert above == [name for name in most if growth.exponent(values["sizes"], values[name]) > most[name]]
    assert status == int("above what it may be" in err)


def test_a_curve_that_is_not_there_is_refused_with_those_that_are(capsys):
    with pytest.raises(SystemExit, match="2"):
        growth.main(["token"])
    assert "no such curve: token; there are tokens, batch" in capsys.readouterr().err
