"""Steps on Apache Beam: what a user sees when something goes wrong there, in this process or another."""

import pytest

from osjax.curation import beam, engine, tables
from osjax.curation.isolate import Limits
from osjax.errors import UserError

pytest.importorskip("apache_beam")
ELSEWHERE = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]


def refuse(rows, pool):
    raise UserError("the server is away: start it")


@pytest.mark.parametrize("options", [[], ELSEWHERE], ids=["here", "elsewhere"])
def test_a_user_s_error_is_its_own_line_without_a_trace(options, tmp_path, capfd):
    tables.write(tmp_path / "in" / "0.parquet", [{"path": "a.mp4", "text": ""}])
    with pytest.raises(UserError) as raised:
        beam.run(engine.Step("step", refuse), tmp_path, ["0.parquet"], Limits(workers=1), options)
    assert str(raised.value) == "the server is away: start it"
    if not options:
        assert "Traceback" not in capfd.readouterr().err


def test_a_runner_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match="config.beam: Unexpected pipeline runner: Nonsense") as raised:
        beam.run(engine.Step("step", refuse), tmp_path, ["0.parquet"], Limits(), ["--runner=Nonsense"])
    assert raised.value.status == 2
