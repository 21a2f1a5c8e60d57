"""osjax bench: FLOPs counted by hand and by tracing, blocks that fit, and whole reports of tiny models."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

from osjax.__main__ import main
from osjax.bench import fit as bench_fit
from osjax.bench import measure as bench_measure
from osjax.bench.works import Bench
from osjax.errors import UserError
from osjax.parallel import mesh
from osjax.parallel.peak import published_peak
from osjax.parts import config
from osjax.parts.bench import BenchKeys
from osjax.parts.groups import to_dataclass
from tests.e2e import two_stages


def one_device(path, **overrides):
    keys = to_dataclass(BenchKeys, config.load(path, overrides), "")
    return Bench.of(keys, mesh.make(devices=jax.devices()[:1]))


def test_the_whole_model_counts_what_the_arithmetic_says():
    # Section J: 2 * 12 * 57 * D ** 2 a token in the blocks' linear layers, 4 * S ** 2 * D a block in attention.
    bench = one_device("configs/bench/v2_256.py", **{"mesh.fsdp": 1})
    work = bench.works["denoise"]()
    S, D = 33 * 16 * 16 + 512, 3072
    assert work.tokens == S
    assert work.flops == pytest.approx(2 * 12 * 57 * D**2 * S + 4 * S**2 * D * 57, rel=0.01)
    assert bench.works["train"]().flops == 9 * work.flops  # batch 3, forward and twice that backward


def test_as_many_blocks_fit_as_the_memory_allows():
    asked = []

    def bytes_of(blocks):
        asked.append(blocks)
        return 100 + 10 * blocks[0] + 3 * blocks[1]

    assert bench_fit.blocks(bytes_of, (19, 38), 100 + 16 * 7.5) == (7, 14)
    assert len(asked) == 2
    assert bench_fit.blocks(bytes_of, (19, 38), 1e6) == (19, 38)
    assert bench_fit.blocks(bytes_of, (2, 4), 100 + 16 * 1.5) == (1, 2)
    with pytest.raises(UserError, match=r"not even \(1, 2\) blocks fit"):
        bench_fit.blocks(bytes_of, (19, 38), 110)


TINY = [
    "--config.model.hidden_size=32",
    "--config.model.num_heads=2",
    "--config.model.axes_dim=4,6,6",
    "--config.train_batch=2",
    "--config.denoise_batch=2",
    "--config.mesh.data=1",
    "--config.mesh.fsdp=2",
    "--config.mesh.sequence=2",
    "--config.mesh.tensor=2",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of a tiny model on a mesh of all kinds of axes, with a trace."""
    folder = tmp_path_factory.mktemp("bench")
    flags = ["--blocks=1,2", "--repeats=2", f"--json={folder}/report.json", f"--profile={folder}/trace"]
    assert main(["bench", "train", "denoise", "t5", "data", *TINY, "--config.clips.train=16", *flags]) == 0
    return json.loads((folder / "report.json").read_text()), folder


def test_the_report_holds_every_work_with_rates_that_agree(report):
    found, folder = report
    works = {result["name"]: result for result in found["results"]}
    assert list(works) == ["train", "denoise", "t5", "data"]
    assert found["devices"] == 8 and found["peak_is"] == "measured" and found["versions"]["jax"] == jax.__version__
    for name in ("train", "denoise", "t5"):
        work = works[name]
        assert work["fastest"] <= work["seconds"] <= work["slowest"] and work["compile_s"] > 0
        assert work["per_s"] * work["seconds"] == pytest.approx(1)
        assert work["mfu"] * found["peak_tflops"] * 8 == pytest.approx(work["flops"] / work["seconds"] / 1e12)
        assert work["program_bytes"] > 0
    assert works["train"]["flops"] == 3 * works["denoise"]["flops"] > 0
    assert "1+2 blocks" in works["train"]["size"] and works["data"]["per_s"] > 0


def test_the_profile_is_a_trace_per_work(report):
    _, folder = report
    assert all(list((folder / "trace" / name).rglob("*.xplane.pb")) for name in ("train", "denoise", "t5"))
    assert not (folder / "trace" / "data").exists()


def test_a_train_step_is_measured_on_a_state_that_moves(report):
    size = {"model.hidden_size": 32, "model.num_heads": 2, "model.axes_dim": (4, 6, 6), "model.depth": 1}
    bench = one_device("configs/bench/demo.py", **size)
    work = bench.works["train"]()
    state, *rest = work.inputs()
    before = float(jnp.abs(state.params["img_in"]["kernel"]).sum())
    after, metrics = work.lower().compile()(state, *rest)
    assert int(after.step) == 1 and math.isfinite(metrics["loss"])
    assert float(jnp.abs(after.params["final_layer"]["linear"]["bias"]).sum()) > 0
    assert before > 0 and state.params["img_in"]["kernel"].is_deleted()


def test_an_update_of_an_autoencoder_is_measured(capsys):
    cfg = config.load("configs/bench/demo.py", {"autoencoder.size": 16, "autoencoder.frames": 4})
    cfg.autoencoder.config = two_stages.autoencoder().model
    keys = to_dataclass(BenchKeys, cfg, "")
    works = Bench.of(keys, mesh.make(devices=jax.devices()[:1])).works
    found = bench_measure.measure(works["train_autoencoder"](), 0, 2, 1.0)
    assert found.repeats == 2 and found.compile_s > 0
    assert found.tokens_per_s == pytest.approx(4 * 2 * 8 * 8 * found.per_s)
    assert found.flops > 3 * works["encode"]().flops > 0


@pytest.mark.parametrize(
    "argv, words",
    [
        (["fly"], "unknown work 'fly'"),
        (["train", "--blocks=3"], "blocks 3 must be two counts"),
        (["train", "--blocks=0,0"], "two counts"),
        (["train", "--repeats=0"], "repeats 0 must be"),
        (["train", "--config.model.in_channels=48"], "set it to 32"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_status_2(argv, words, capsys):
    assert main(["bench", *argv]) == 2
    assert words in capsys.readouterr().err


def test_published_peaks_are_found_by_the_devices_name():
    class Device:  # only its name is read
        def __init__(self, kind):
            self.device_kind = kind

    kinds = {"NVIDIA H200": 989.4, "TPU v5 lite": 197.0, "TPU v5": 459.0, "TPU v6 lite": 918.0, "cpu": None}
    assert {kind: published_peak(Device(kind)) for kind in kinds} == kinds
