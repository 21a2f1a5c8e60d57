"""`osjax verify`: a finished run is well; whatever of it is damaged is named, a line each, and nothing is mended."""

import json
import shutil

import jax
import pytest

from osjax.__main__ import main
from osjax.parallel import sharding
from tests.training.test_twice import flipped

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def run(undisturbed, tmp_path):
    return shutil.copytree(undisturbed, tmp_path / "moved")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_run_is_well_wherever_it_was_moved_and_a_step_of_each_stage_has_the_same_bits_twice(run, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["verify", str(run)]) == 0
    out, err = capsys.readouterr()
    assert out.count("a step done twice has the same bits") == 2 and "files are as their fingerprints" in out
    assert not [line for line in err.splitlines() if line.startswith("osjax:")]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_everything_that_is_damaged_is_named_in_one_go_and_stays_as_it_was(run, capsys):
    flip(largest(run / "stage1_t2v" / "checkpoints" / "18"))
    flip(largest(run / "data" / "train"))
    (run / "autoencoder" / "checkpoints.seals" / "6.json").write_text("{")
    (run / "autoencoder" / "latent_scale.json").write_text("[]")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[3] = lines[3][:-9]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    before = sorted(run.rglob("*"))
    capsys.readouterr()
    assert main(["verify", str(run), "--no-replay"]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("osjax:")]
    wanted = (
        "1 lines are damaged",
        "step 4 where step 3",
        "shard",
        "6.json cannot be read",
        "latent_scale",
        "has changed",
    )
    assert len(told) == len(wanted)
    assert all(any(words in line for line in told) for words in wanted), told
    assert sorted(run.rglob("*")) == before


def test_a_device_that_computes_wrongly_is_found(run, capsys, monkeypatch):
    """The first result of the compiled step of each stage comes back with another bit."""
    made = sharding.jit_step

    def with_a_fault(*args):
        step, calls = made(*args), []

        def once(*given):
            state, metrics = step(*given)
            calls.append(1)
            if len(calls) == 1:
                leaves, structure = jax.tree.flatten(state.params)
                state = state.replace(params=structure.unflatten([flipped(leaves[0], 5, 0), *leaves[1:]]))
            return state, metrics

        return once

    monkeypatch.setattr(sharding, "jit_step", with_a_fault)
    assert main(["verify", str(run)]) == 1
    err = capsys.readouterr().err
    assert err.count("done twice gave different bits in state/params/") == 2 and "computes wrongly" in err


def test_what_is_no_run_is_refused_in_one_line(tmp_path, run, capsys):
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["verify", str(tmp_path / "empty")]) == 1
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "kind_of": 1}))
    assert main(["verify", str(run)]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("osjax:")]
    assert len(err) == 3 and "is no folder" in err[0] and "config.json cannot be read" in err[1] and "kind_of" in err[2]
