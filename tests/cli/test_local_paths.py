"""URLs in place of local paths: refused at once by every verb, option and key, and nothing called `gs:` is made."""

import argparse
from importlib import import_module

import pytest

from osjax.__main__ import VERBS, _parser, main
from osjax.cli import local_paths
from osjax.errors import UserError
from osjax.parts import config, run

URL = "gs://bucket/place"
# verb -> what a valid command line needs beside the option under test.
NEEDS = {
    "train": ("--config=configs/smoke.py",),
    "encode": ("--config=configs/smoke.py",),
    "plan": ("--config=configs/smoke.py", "--target=v5p-8"),
    "convert": ("in", "out", "--model=flux_ae"),
    "report": ("run",),
}
ARGUMENTS = [
    ("report", (URL,), "workdir"),
    ("convert", (URL, "out", "--model=flux_ae"), "IN"),
    ("convert", ("in", URL, "--model=flux_ae"), "OUT"),
    ("eval", ("recon", URL), "VIDEOS"),
    ("eval", ("recon", "videos", f"--output={URL}"), "--output"),
    ("eval", ("recon", f"--workdir={URL}"), "--workdir"),
    ("data", ("run", f"--config.out={URL}", "--config.source=in"), "config.out"),
    ("data", ("run", f"--config.source={URL}", "--config.out=out"), "config.source"),
    ("data", ("build", URL, "out"), "IN"),
    ("data", ("build", "in", "out", f"--root={URL}"), "--root"),
    *[("data", (step, URL, "out.csv"), "IN") for step in ("probe", "cut", "score", "filter", "caption", "stats")],
    *[("data", (step, "in", f"{URL}.csv"), "OUT") for step in ("probe", "cut", "score", "filter", "caption")],
    ("data", ("stats", "in", f"{URL}.html"), "OUT"),
    ("sample", ("--prompt=a", "--mode=i2v_head", f"--ref=a.png; {URL}"), "--ref"),
    ("sample", ("--prompt=a", "--config", URL), "--config"),
    *[("sample", ("--prompt=a", f"--{flag}={URL}"), f"--{flag}") for flag in ("output", "workdir", "cache")],
    ("sample", (f"--prompts={URL}",), "--prompts"),
    *[("sample", ("--prompt=a", f"--config.{k}={URL}"), f"config.{k}") for k in ("output.folder", "model.weights")],
    *[("bench", (f"--{flag}={URL}",), f"--{flag}") for flag in ("json", "profile")],
    *[("plan", (*NEEDS["plan"], f"--{flag}={URL}"), f"--{flag}") for flag in ("json", "html", "markdown")],
    *[(verb, (*NEEDS.get(verb, ()), f"--workdir={URL}"), "--workdir") for verb in ("train", "encode", "demo")],
    *[(verb, (*NEEDS.get(verb, ()), f"--config.workdir={URL}"), "config.workdir") for verb in ("train", "demo")],
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []  # nothing is made, least of all a folder `gs:`


@pytest.mark.parametrize("verb, argv, label", ARGUMENTS, ids=lambda x: x if isinstance(x, str) else None)
def test_a_url_where_only_a_local_path_works_is_refused_at_once(verb, argv, label, capsys):
    assert main([verb, *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert f"{label} is {URL}" in err and "on this machine" in err


@pytest.mark.parametrize("verb", ["train", "encode", "demo"])
def test_a_remote_workdir_is_told_of_config_checkpoints(verb, capsys):
    assert main([verb, *NEEDS.get(verb, ()), f"--workdir={URL}"]) == 2
    assert "--config.checkpoints=URL" in capsys.readouterr().err


@pytest.mark.parametrize("url", ("http://bucket/run", "file:///tmp/run", "memory://run", "S3://bucket"))
@pytest.mark.parametrize("more", ((), ("--dry-run",)))
def test_a_store_that_takes_no_checkpoints_is_refused_before_anything_starts(url, more, tmp_path, capsys):
    argv = ["train", "--config=configs/smoke.py", f"--workdir={tmp_path / 'run'}", f"--config.checkpoints={url}", *more]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"config.checkpoints is {url}: checkpoints go to folders, gs:// and s3://" in err


def _options(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _options(sub)
        elif action.nargs != 0 and action.type in (None, str) and not action.choices:
            yield action.dest


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_every_verb_that_takes_text_is_held_to_it(verb):
    for dest in _options(_parser(verb, import_module(VERBS[verb].module))):
        refused = dest not in local_paths.TEXTS
        try:
            local_paths.check(verb, {dest: URL}, {})
            assert not refused, f"{verb} {dest}"
        except UserError as error:
            assert refused and error.status == 2


def test_what_takes_urls_and_texts_still_does():
    local_paths.check("data", {"step": "build", "source": "in", "out": URL}, {})
    local_paths.check("sample", {"prompt": [URL, f"a; {URL}"], "negative": URL}, {})
    local_paths.check("train", {"workdir": "runs/a", "coordinator": "10.0.0.1:80", "stage": None}, {})
    local_paths.check_config("train", config.load("configs/smoke.py", {"checkpoints": URL, "source": URL}))
    local_paths.check_config("train", {"stages": {"one": {"data": {"source": URL, "held_out": URL}}}})
    with pytest.raises(UserError, match="config.stages.one.data.features is"):
        local_paths.check_config("train", {"stages": {"one": {"data": {"features": URL}}}})
    with pytest.raises(UserError, match="config.data.source is"):  # videos of this machine
        local_paths.check_config("eval", config.load("configs/eval/recon.py", {"data.source": URL}))
    curation = config.load("configs/curation/report.py", {"caption.url": "http://127.0.0.1:8000/v1"})
    local_paths.check_config("data", curation)


def test_a_run_from_python_refuses_a_remote_workdir_too():
    cfg = config.load("configs/smoke.py", {"workdir": URL})
    with pytest.raises(UserError, match="config.workdir is .*, a URL: name a folder on this machine"):
        run.of_config(cfg)
