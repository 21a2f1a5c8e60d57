"""No key of any config is silent: nonsense is refused by name, or the key is in a table of what reads it.

For every leaf of a config group a value that makes no sense is set. Either that is a UserError before anything runs, or
the key takes any value of its type; then `ACTS` names a module whose code reads it.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from osjax.bench import reconstruction
from osjax.bench.works import Bench
from osjax.cli import serve as serving
from osjax.data import video
from osjax.errors import UserError
from osjax.parallel import mesh
from osjax.parts import config, curation, pipeline, run
from osjax.parts.bench import BenchKeys
from osjax.parts.groups import to_dataclass
from osjax.parts.reconstruction import ReconstructionKeys
from osjax.serve import app
from tests.sampling import files, trained

# Keys that take every value of their type -> the module that reads them. Switches are here, paths to write to, texts.
ACTS = {
    "data.batch_per_device": "osjax.parts.diffusion",
    "data.cached": "osjax.stages.diffusion",
    "data.cached_text": "osjax.stages.diffusion",
    "data.exact_resize": "osjax.stages.data",
    "data.fill": "osjax.stages.data",
    "data.random_start": "osjax.stages.data",
    "data.state_fps": "osjax.stages.data",
    "data.state_motion": "osjax.stages.data",
    "mesh.fit": "osjax.parallel.mesh",
    "loss_on_given": "osjax.stages.diffusion",
    "start.average": "osjax.stages.start",
    "model.cond_embed": "osjax.models.mmdit.model",
    "model.guidance_embed": "osjax.models.mmdit.model",
    "model.qkv_bias": "osjax.models.mmdit.blocks",
    "lpips.untrained": "osjax.parts.lpips",
    "remat": "osjax.parts.autoencoder_stage",
    "workdir": "osjax.parts.run",
    "checkpoints": "osjax.parts.run",
    "compilation_cache": "osjax.cli.train",
    "tensorboard": "osjax.cli.train",
    "wandb": "osjax.cli.train",
    "int8": "osjax.parts.pipeline",
    "offload": "osjax.parts.pipeline",
    "output.folder": "osjax.cli.sample",
    "output.by_suite": "osjax.sampling.batch",
    "output.overwrite": "osjax.cli.sample",
    "sample.drop_padding": "osjax.sampling.pipeline",
    "sample.image_oscillation": "osjax.sampling.denoise",
    "sample.image_ramp": "osjax.sampling.denoise",
    "sample.negative": "osjax.sampling.pipeline",
    "sample.match_fps": "osjax.sampling.pipeline",
    "sample.put_back": "osjax.sampling.pipeline",
    "sample.reuse_lines": "osjax.sampling.denoise",
    "sample.shift": "osjax.sampling.denoise",
    "sample.state_fps": "osjax.sampling.settings",
    "sample.text_oscillation": "osjax.sampling.denoise",
    "data.source": "osjax.stages.data",
    "tiling.compare": "osjax.bench.reconstruction",
    "output": "osjax.bench.reconstruction",
    "lpips": "osjax.bench.reconstruction",
    "cut.borders": "osjax.curation.cut",
    "probe.drop_hdr": "osjax.curation.raw",
    "probe.drop_profiles": "osjax.curation.raw",
    "folder": "osjax.serve.app",
    "host": "osjax.serve.app",
    "hosts": "osjax.serve.guard",
    "require_key": "osjax.serve.options",
    "root": "osjax.cli.data",
    "source": "osjax.cli.data",
    "out": "osjax.cli.data",
    **{f"filter.{name}.{side}": "osjax.curation.filter" for name in curation.THRESHOLDS for side in ("min", "max")},
}
# Groups of free-form fields, which `to_dataclass` refuses one by one.
ENOUGH = re.compile(r"\.(encoder|decoder|config)\.")


def nonsense(cfg: ConfigDict, key: str):
    """A value of the key's type that makes no sense; None for groups."""
    *groups, name = key.split(".")
    for group in groups:
        cfg = cfg[group]
    kind, value = cfg.get_type(name), cfg[name]
    if isinstance(value, ConfigDict):
        return None
    if kind is bool:
        return not value
    return {int: -7, float: -7.0, tuple: ("banana",), list: ["banana"]}.get(kind, "/no/such/banana")


def silent(path: str | Path, given: dict, check: Callable[[ConfigDict], None]) -> Iterator[str]:
    """Keys of a config that take nonsense. given: overrides. check: what a verb does before it works."""
    base = config.load(path, given)
    check(base)
    for key in config.dotted_keys(base):
        value = nonsense(base, key)
        if value is None or ENOUGH.search(key):
            continue
        try:
            check(config.load(path, {**given, key: value}))
        except UserError as error:
            assert "\n" not in str(error)
        else:
            yield key


def train(cfg: ConfigDict) -> None:
    checked = run.of_config(cfg, ignored=("report",))
    missing = [line for line in run.missing_inputs(checked) if "banana" in line]
    if missing:
        raise UserError(missing[0])


def sample(cfg: ConfigDict) -> None:
    pipe = pipeline.from_config(cfg)
    pipe.check(pipe.settings)


def bench(cfg: ConfigDict) -> None:
    keys = to_dataclass(BenchKeys, cfg, "")
    Bench.of(keys, mesh.make(**vars(keys.mesh))).works["train"]()


def serve(cfg: ConfigDict) -> None:
    options, models = serving.of_config(cfg)
    app.check(options, models)


def evaluate(cfg: ConfigDict) -> None:
    reconstruction.opened(to_dataclass(ReconstructionKeys, cfg, ""))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return str(trained.write(tmp_path_factory.mktemp("workdir")))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return files.write(tmp_path_factory.mktemp("weights"))


def cases(workdir, weights):
    source = str(weights.with_name("clip.mp4"))
    video.write_mp4(source, np.zeros((8, 32, 32, 3), np.uint8), 8)
    recon = {"autoencoder.workdir": workdir, "data.source": source, "data.height": 32, "data.width": 32}
    recon["data.frames"] = 8
    return {
        "train": ("configs/smoke.py", {}, train),
        "sample a workdir": ("configs/sample/demo.py", {"workdir": workdir}, sample),
        "sample files": (weights, {}, sample),
        "bench": ("configs/bench/demo.py", {}, bench),
        "eval recon": ("configs/eval/recon.py", recon, evaluate),
        "serve": ("configs/serve.py", {"models.demo.workdir": workdir}, serve),
        "data run": ("configs/curation/report.py", {"source": "a", "out": "b"}, lambda cfg: curation.of_config(cfg)),
    }


@pytest.mark.parametrize(
    "verb", ["train", "sample a workdir", "sample files", "bench", "eval recon", "serve", "data run"]
)
def test_nonsense_is_refused_or_the_key_is_known_to_act(verb, workdir, weights):
    taken = [re.sub(r"^(stages\.\w+|models\.demo)\.", "", key) for key in silent(*cases(workdir, weights)[verb])]
    unknown = sorted({key for key in taken if key not in ACTS})
    assert unknown == [], f"{verb} takes these and nobody says what reads them"
    assert taken, "a config without switches would make this test empty"


@pytest.mark.parametrize("key", sorted(ACTS))
def test_what_is_said_to_read_a_key_names_it(key):
    leaf, source = key.split(".")[-1], inspect.getsource(import_module(ACTS[key]))
    assert re.search(rf"\b{leaf}\b", source), f"{ACTS[key]} does not mention {leaf}"


def test_a_silent_key_would_be_found(tmp_path):
    path = tmp_path / "idle.py"
    path.write_text("from osjax.configs import smoke\ndef get_config():\n    return smoke.get_config()\n")
    loose = partial(silent, path, {}, lambda cfg: None)
    assert {"stages.stage1_t2v.lora.alpha", "stages.autoencoder.losses.crop"} <= set(loose())


@pytest.mark.parametrize(
    "path, overrides, says",
    [
        ("configs/smoke.py", {"stages.autoencoder.evaluate.prompts": "a"}, "evaluate.prompts"),
        ("configs/smoke.py", {"stages.autoencoder.data.cached_text": True}, "an autoencoder learns from videos"),
        ("configs/smoke.py", {"stages.autoencoder.data.features": "x"}, "an autoencoder learns from videos"),
        ("configs/smoke.py", {"stages.autoencoder.start.layout": "flux"}, "an autoencoder has one layout"),
        ("configs/smoke.py", {"stages.stage1_t2v.lora.alpha": 3}, "lora.alpha is 3.0, but lora.rank is 0"),
        ("configs/smoke.py", {"stages.stage1_t2v.autoencoder.family": "dcae"}, "autoencoder.stage names"),
        ("configs/smoke.py", {"stages.stage1_t2v.hang.least_s": 3}, "hang.factor is 0"),
        ("configs/smoke.py", {"stages.stage1_t2v.model.attention_kernel": "dense"}, "model.attention is dense"),
        ("configs/smoke.py", {"stages.stage1_t2v.guidance": 2.0}, "guidance_embed"),
        ("configs/smoke.py", {"stages.stage2_i2v.model.cond_embed": False}, "set model.cond_embed"),
        ("configs/smoke.py", {"stages.stage1_t2v.model.vec_in_dim": 64}, "text.width"),
    ],
)
def test_a_key_that_nothing_reads_here_is_refused_by_name(path, overrides, says):
    with pytest.raises(UserError, match=says) as refused:
        run.of_config(config.load(path, overrides))
    assert refused.value.status == 2


@pytest.mark.parametrize(
    "overrides, says",
    [
        ({"model.adapter": "/no/such/lora"}, "model.adapter is '/no/such/lora', which does not exist"),
        ({"model.adapter_strength": 2.0}, "model.adapter_strength is 2.0, but model.adapter is not given"),
        ({"dtype": "banana"}, "dtype is 'banana'"),
        ({"attention": "banana"}, "unknown attention 'banana'"),
        ({"model.layout": "banana"}, "model.layout is 'banana', but the run in"),
        ({"autoencoder.dtype": "banana"}, "autoencoder.dtype is 'banana', but the run in"),
        ({"text.width": 32}, "text.width is 32, but the run in"),
    ],
)
def test_a_workdir_takes_no_key_that_it_would_ignore(overrides, says, workdir):
    with pytest.raises(UserError, match=says) as refused:
        pipeline.from_config(config.load("configs/sample/demo.py", {"workdir": workdir, **overrides}))
    assert refused.value.status in (1, 2)


def test_a_workdir_samples_in_another_dtype_and_attention_where_they_are_asked_for(workdir):
    cfg = config.load("configs/sample/demo.py", {"workdir": workdir, "dtype": "bfloat16", "attention": "blockwise"})
    asked, plain = pipeline.from_config(cfg), pipeline.from_checkpoint(workdir)
    assert (asked.module.cfg.dtype, asked.module.cfg.attention) == ("bfloat16", "blockwise")
    assert (plain.module.cfg.dtype, plain.module.cfg.attention) == ("float32", "dense")
