"""One run a workdir: `osjax train`, `osjax sample` and `osjax data run` beside themselves."""

import os
import signal

import pytest

from osjax import lock
from osjax.__main__ import main
from tests.e2e import faults
from tests.sampling import trained

pytestmark = pytest.mark.timeout(600)


def test_a_second_run_on_a_workdir_exits_with_2_and_the_third_goes_on_after_a_kill(two_stages, tmp_path):
    workdir = tmp_path / "run"
    first = faults.start(workdir, **two_stages)
    first.until(lambda: bool(faults.losses(workdir)))
    assert first.poll() is None, first.stderr
    argv = ["train", f"--config={two_stages['config']}", f"--config.workdir={workdir}"]
    second = faults.Started(argv, tmp_path / "second").finish(120)
    assert second.poll() == 2 and len(second.stderr.strip().splitlines()) == 1
    assert f"{workdir} is in use by osjax train, process" in second.stderr
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = faults.losses(workdir)["autoencoder"]
    assert faults.stop_after(workdir, "autoencoder", len(before) + 1, **two_stages)[0] in (0, os.EX_TEMPFAIL)
    assert faults.losses(workdir)["autoencoder"][: len(before)] == before
    assert not list(workdir.glob(".osjax*"))


@pytest.mark.parametrize(
    "where, argv",
    [
        ("samples", ["sample", "--prompt=a", "--output={out}", "--workdir={run}"]),
        ("curated", ["data", "run", "--config.source={source}", "--config.out={out}"]),
        ("set", ["data", "build", "{source}", "{out}"]),
        ("table.work", ["data", "probe", "{source}", "{parent}/table.parquet"]),
    ],
)
def test_verbs_that_write_to_a_folder_that_another_writes_to_exit_with_2(where, argv, tmp_path, capfd):
    names = {"out": tmp_path / where, "parent": tmp_path, "source": tmp_path / "videos"}
    if argv[0] == "sample":
        names["run"] = trained.write(tmp_path / "run")
    (tmp_path / "videos").mkdir()
    with lock.held(tmp_path / where, "osjax elsewhere"):
        assert main([word.format(**names) for word in argv]) == 2
        (line,) = capfd.readouterr().err.strip().splitlines()
        assert f"{where} is in use by osjax elsewhere, process {os.getpid()}" in line
        assert set(os.listdir(tmp_path / where)) == {lock.LOCK, lock.OWNER}
