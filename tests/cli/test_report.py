"""`osjax report` of a run's folder that comes from somebody else."""

import json

import pytest

from osjax.__main__ import main

SECRET = "SECRET-of-this-machine"


def lines(**changed):
    row = {"stage": "a", "step": 0, "loss": 1.0, "steps_per_s": 2.0, "skipped": 0}
    return [row, {**row, "step": 1, **changed}, {**row, "step": 2}]


def report(folder, told, capsys):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    status = main(["report", str(folder)])
    return status, capsys.readouterr().err


@pytest.mark.parametrize("key", ["loss", "steps_per_s", "skipped", "data_wait_s", "eval_loss", "step"])
def test_values_that_are_no_numbers_are_left_out(key, tmp_path, capsys):
    for value in ("text", [], {}, None, True, float("nan"), 2**70, int("9" * 400), -1e308, "<script>"):
        status, said = report(tmp_path, lines(**{key: value}), capsys)
        assert status == 0 and "osjax:" not in said, (value, said)
        assert "<script>" not in (tmp_path / "run.html").read_text()


@pytest.mark.parametrize("stage", ["$\\bad$", "a$b", "<b>", "\u202egpj", "x" * 255, "é"])
def test_any_name_of_a_stage_is_shown_to_the_letter(stage, tmp_path, capsys):
    status, said = report(tmp_path, lines(stage=stage), capsys)
    assert status == 0, said


def test_what_links_lead_to_outside_of_the_folder_is_not_shown(tmp_path, capsys):
    run, outside = tmp_path / "run", tmp_path / "outside"
    for folder in (run / "a", run / "samples", outside):
        folder.mkdir(parents=True)
    for name in ("clips.txt", "x.mp4"):
        (outside / name).write_text(SECRET)
    (run / "a" / "clips.txt").symlink_to(outside / "clips.txt")
    (run / "samples" / "linked.mp4").symlink_to(outside / "x.mp4")
    (run / "samples" / "own.mp4").write_bytes(b"x")
    told = [*lines(), *lines(stage="../outside"), *lines(stage=str(outside))]
    status, _ = report(run, told, capsys)
    page = (run / "run.html").read_text()
    assert status == 0 and SECRET not in page and "linked" not in page and "own" in page
    (run / "a" / "clips.txt").unlink()
    (run / "a" / "clips.txt").write_text(SECRET)  # the control: its own is shown
    report(run, told, capsys)
    assert SECRET in (run / "run.html").read_text()


def test_a_file_of_very_many_stages_is_one_line(tmp_path, capsys):
    status, said = report(tmp_path, [line for n in range(200) for line in lines(stage=str(n))], capsys)
    assert status == 1 and said.count("\n") == 1 and "of 201 stages" in said
