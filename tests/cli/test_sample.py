"""`osjax sample` as a user runs it, on a workdir with real checkpoints of tiny models."""

import json

import numpy as np
import pytest
from PIL import Image

from osjax.__main__ import main
from osjax.data import video
from tests import text_server
from tests.sampling import files, trained


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return trained.write(tmp_path_factory.mktemp("workdir"))


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """An image larger than the video, a clip and a long clip."""
    folder, rng = tmp_path_factory.mktemp("media"), np.random.RandomState(0)
    Image.fromarray(rng.randint(0, 256, (48, 64, 3), np.uint8)).save(folder / "still.png")
    for name, frames in (("clip", 34), ("long", 66)):
        moving = np.linspace(0, 255, frames)[:, None, None, None] * np.ones((1, 32, 32, 3))
        video.write_mp4(folder / f"{name}.mp4", moving.astype(np.uint8), 8)
    return folder


def sample(workdir, *flags, status=0):
    code = main(["sample", f"--workdir={workdir}", "--cache=", *map(str, flags)])
    assert code == status
    return code


def written(folder):
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def test_a_refined_prompt_is_kept_and_what_is_changed_in_it_is_made(workdir, tmp_path, capsys):
    with text_server.TextServer(text_server.words) as server:
        flags = ("--prompt=a cat", f"--refine={server.url}", f"--output={tmp_path}")
        sample(workdir, *flags)
        sample(workdir, *flags)
        assert len(server.requests) == 1  # the second time nothing is asked or made
        assert "0 made now" in capsys.readouterr().out
    (told,) = [row for row in written(tmp_path).values() if "prompt" in row]
    assert told["prompt"] == "a cat, in soft light"
    path = tmp_path / "refined.json"
    path.write_text(path.read_text().replace("soft", "hard"))
    sample(workdir, *flags)  # the server is gone
    assert {row.get("prompt") for row in written(tmp_path).values()} >= {"a cat, in hard light"}
    sample(workdir, "--prompt=a", "--refine=http://10.0.0.1/v1", status=2)
    assert "give --refine-host" in capsys.readouterr().err
    sample(workdir, "--prompt=a", "--refine-model=b", status=2)


def test_a_prompt_becomes_a_playable_video_with_its_settings_beside_it(workdir, tmp_path, capsys):
    sample(workdir, "--prompt", "a red circle", "--output", tmp_path, "--seed=5", "--negative=blurry")
    (path,) = tmp_path.glob("*.mp4")
    assert path.name == "0000-a-red-circle.mp4"
    assert video.decode(path).shape == (8, 32, 32, 3)
    with video.av.open(str(path)) as file:
        assert file.streams.video[0].average_rate == 8 and file.streams.video[0].codec_context.name == "h264"
    (says,) = written(tmp_path).values()
    assert {k: says[k] for k in ("prompt", "negative", "seed", "mode", "steps", "height", "frames", "fps")} == {
        "prompt": "a red circle",
        "negative": "blurry",
        "seed": 5,
        "mode": "t2v",
        "steps": 3,
        "height": 32,
        "frames": 8,
        "fps": 8,
    }
    assert "1 sample in" in capsys.readouterr().out


def test_a_workdir_may_be_named_by_way_of_the_folder_above(workdir, tmp_path, monkeypatch):
    below = workdir / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    sample("..", "--prompt", "a red circle", "--output", tmp_path)
    sample(f"../below/../../{workdir.name}", "--prompt", "a red circle", "--output", tmp_path / "again")
    assert len(list(tmp_path.rglob("*.mp4"))) == 2


REFERENCES = {
    "t2v": None,
    "i2v_head": "still.png",
    "i2v_tail": "still.png",
    "i2v_loop": "still.png;clip.mp4",
    "v2v_head": "clip.mp4",
    "v2v_tail": "clip.mp4",
    "v2v_head_easy": "long.mp4",
    "v2v_tail_easy": "long.mp4",
}


@pytest.mark.parametrize("mode", REFERENCES)
def test_every_mode_makes_videos_that_depend_on_what_is_given(workdir, media, tmp_path, mode):
    frames = 8 if "v2v" not in mode else 68 if "easy" in mode else 36
    common = (f"--mode={mode}", f"--frames={frames}", "--prompt=a")
    ref = REFERENCES[mode] and ";".join(str(media / name) for name in REFERENCES[mode].split(";"))
    sample(workdir, *common, *(["--ref", ref] if ref else []), "--output", tmp_path / "a")
    (path,) = (tmp_path / "a").glob("*.mp4")
    assert video.decode(path).shape == (frames, 32, 32, 3)
    (says,) = written(tmp_path / "a").values()
    assert says["mode"] == mode and len(says["references"]) == (ref or "").count("/media") > 0 or ref is None
    if ref:
        black = np.zeros((66, 32, 32, 3), np.uint8)
        video.write_mp4(tmp_path / "black.mp4", black, 8)
        sample(workdir, *common, "--ref", tmp_path / "black.mp4", "--output", tmp_path / "b")
        (other,) = (tmp_path / "b").glob("*.mp4")
        assert np.abs(video.decode(other).astype(int) - video.decode(path)).max() > 5


def test_a_table_gives_references_negatives_names_and_seeds(workdir, media, tmp_path):
    table = media / "prompts.csv"  # references are taken from its folder
    table.write_text('text,ref,neg,name,seed\n"a, b",still.png,bad,first,3\nc,still.png;clip.mp4,,../second,\n')
    sample(workdir, "--prompts", table, "--mode=i2v_head", "--output", tmp_path, "--seed=9", "--samples=2")
    says = written(tmp_path)
    assert list(says) == ["first-0", "first-1", "second-0", "second-1"]
    assert [row["seed"] for row in says.values()] == [3, 4, 9, 10]
    assert [row["negative"] for row in says.values()] == ["bad", "bad", "", ""]
    assert [len(row["references"]) for row in says.values()] == [1, 1, 2, 2]
    assert says["first-0"]["prompt"] == "a, b"


def test_an_interrupted_batch_goes_on_and_finished_samples_stay(workdir, tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n\na blue square\n")
    flags = ("--prompts", prompts, "--output", tmp_path / "out")
    sample(workdir, *flags)
    first, second = sorted((tmp_path / "out").glob("*.mp4"))
    before, bits = first.stat().st_mtime_ns, second.read_bytes()
    second.with_suffix(".json").unlink()  # as when it was killed between the two files
    capsys.readouterr()
    sample(workdir, *flags)
    assert "1 made now" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == before and second.read_bytes() == bits
    sample(workdir, *flags, "--steps=2", status=1)
    assert "was made with another steps: give another --output, or --overwrite" in capsys.readouterr().err
    sample(workdir, *flags, "--config.output.crf=30", status=1)
    assert "was made with another crf" in capsys.readouterr().err
    sample(workdir, *flags, "--frames=1", "--config.output.crf=30", status=2)
    assert "config.output.crf is 30, but one frame is a PNG" in capsys.readouterr().err
    sample(workdir, *flags, "--steps=2", "--overwrite")
    assert first.stat().st_mtime_ns != before and not list((tmp_path / "out").glob(".*"))


def test_the_vbench_layout_holds_videos_alone_named_by_the_prompt_to_the_letter(workdir, tmp_path):
    prompt = "A 3D model of a 1800s victorian house."
    flags = ("--layout=vbench", "--samples=2", "--motion-score=4", "--config.sample.state_fps=true")
    sample(workdir, "--prompt", prompt, *flags, "--output", tmp_path / "videos")
    assert sorted(p.name for p in (tmp_path / "videos").iterdir()) == [f"{prompt}-0.mp4", f"{prompt}-1.mp4"]
    says = written(tmp_path / "videos.settings")
    assert list(says) == [f"{prompt}-0", f"{prompt}-1"]
    assert says[f"{prompt}-0"]["text"] == f"{prompt} 8 FPS. 4 motion score."


def test_the_official_list_of_vbench_is_sampled_as_it_is(workdir, tmp_path, capsys):
    lines = ["A red circle", "a red circle", "The bund Shanghai, oil painting.", "The bund Shanghai, oil painting."]
    (tmp_path / "all.txt").write_text("\n".join(lines) + "\n")
    sample(workdir, f"--prompts={tmp_path / 'all.txt'}", "--layout=vbench", "--output", tmp_path / "videos")
    assert sorted(p.stem for p in (tmp_path / "videos").iterdir()) == sorted(f"{line}-0" for line in set(lines))
    assert "3 samples" in capsys.readouterr().out
    (tmp_path / "two.csv").write_text("text,name\none,a red circle\nanother,a red circle\n")
    output = f"--output={tmp_path / 'two'}"
    assert main(["sample", f"--workdir={workdir}", f"--prompts={tmp_path / 'two.csv'}", "--layout=vbench", output])
    assert "two samples would be written to 'a red circle-0'" in capsys.readouterr().err


def test_rewritten_prompts_make_the_video_and_the_official_ones_its_name(workdir, tmp_path):
    (tmp_path / "long.csv").write_text('text,name\n"A red circle, seen from above, moves",A red circle.\n')
    sample(workdir, f"--prompts={tmp_path / 'long.csv'}", "--layout=vbench", "--output", tmp_path / "videos")
    assert [p.name for p in (tmp_path / "videos").iterdir()] == ["A red circle.-0.mp4"]
    assert written(tmp_path / "videos.settings")["A red circle.-0"]["prompt"] == "A red circle, seen from above, moves"


def test_a_folder_of_suites_is_written_flat_or_by_suite_with_more_samples_against_flicker(workdir, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "scene.txt").write_text("a street\na park\n")
    (tmp_path / "lists" / "temporal_flickering.txt").write_text("a street\n")
    flags = (f"--prompts={tmp_path / 'lists'}", "--layout=vbench", "--flicker-samples=3", "--frames=1", "--seed=7")
    sample(workdir, *flags, "--output", tmp_path / "flat")
    flat = {p.name for p in (tmp_path / "flat").iterdir()}
    assert flat == {"a street-0.png", "a street-1.png", "a street-2.png", "a park-0.png"}
    sample(workdir, *flags, "--by-suite", "--output", tmp_path / "suites")
    made = {str(p.relative_to(tmp_path / "suites")) for p in (tmp_path / "suites").rglob("*.*")}
    flickering = {f"temporal_flickering/a street-{n}.png" for n in range(3)}
    assert made == {"scene/a street-0.png", "scene/a park-0.png"} | flickering
    says = written(tmp_path / "suites.settings" / "temporal_flickering")
    assert [row["seed"] for row in says.values()] == [7, 8, 9]  # a seed for each


def test_one_frame_is_written_as_an_image(workdir, tmp_path):
    sample(workdir, "--prompt=a", "--frames=1", "--output", tmp_path)
    (path,) = tmp_path.glob("*.png")
    assert Image.open(path).size == (32, 32) and path.with_suffix(".json").exists()
    assert not list(tmp_path.glob("*.mp4"))


def test_compiled_programs_are_kept_for_the_next_run(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr("osjax.parallel.compiled.LEAST_S", 0.0)
    flags = ("sample", f"--workdir={workdir}", "--prompt=a", "--height=24", "--width=40")
    assert main([*flags, f"--cache={tmp_path / 'cache'}", f"--output={tmp_path}"]) == 0
    assert any(p.name.startswith("jit_advance") for p in (tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "say what to show"),
        (("--prompt=a", "--mode=i2v_head"), "needs a reference for prompt 1"),
        (("--prompt=a", "--ref=no.png", "--mode=i2v_head"), "reference no.png does not exist"),
        (("--prompt=a", "--prompt=b", "--ref=no.png"), "1 --ref for 2 --prompt"),
        (("--prompt=a", "--mode=i2v"), "unknown condition mode 'i2v'"),
        (("--prompt=a", "--mode=t2i2v"), "needs an image model"),
        (("--prompt=a", "--frames=9"), "the nearest valid number is 8"),
        (("--prompt=a", "--frames=many"), "invalid int value"),
        (("--prompt=a", "--layout=flat"), "unknown layout 'flat'"),
        (("--prompt=a/b", "--layout=vbench"), "holds a path separator"),
        (("--prompt=a", "--flicker-samples=25"), "for the suite temporal_flickering, of which no prompt is"),
        (("--prompt=a", "--flicker-samples=0"), "flicker_samples is 0"),
        (("--prompt=a", "--by-suite"), "prompt 1 is of no suite"),
        (("--prompt=a", "--samples=0"), "ask for at least 1"),
        (("--prompt=a", "--workdir=nowhere"), "nowhere holds no model.json"),
        (("--prompt=a", "--config.sample.step=3"), "did you mean sample.steps"),
        (("--prompt=a", "--aspect-ratio=2:7"), "aspect ratio '2:7' is unknown"),
        (("--prompt=a", "--resolution=256px", "--height=32", "--width=32"), "not both"),
        (("--prompt=a", "--steps=0"), "steps is 0"),
        (("--prompt=a", "--topology=v5p:2x2x1"), "--topology goes with --memory"),
        (("--memory", "--topology=no such thing"), "cannot be compiled for"),
    ],
)
def test_mistakes_are_one_line_before_any_work(workdir, tmp_path, capsys, flags, says):
    code = main(["sample", f"--workdir={workdir}", "--cache=", f"--output={tmp_path / 'out'}", *flags])
    error = capsys.readouterr().err
    assert code in (1, 2) and says in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_offload_and_int8_are_switches_of_the_command_line(workdir, tmp_path):
    for name, flags in {"plain": (), "offload": ("--offload",), "int8": ("--offload", "--int8")}.items():
        sample(workdir, "--prompt=a", *flags, "--output", tmp_path / name)
    plain, offload, int8 = (video.decode(next((tmp_path / n).glob("*.mp4"))) for n in ("plain", "offload", "int8"))
    np.testing.assert_array_equal(offload, plain)
    assert 0 < np.abs(int8.astype(int) - plain).max() < 60


def test_the_solver_is_a_flag_and_samples_say_which_one_made_them(workdir, tmp_path):
    made = {}
    for solver in ("euler", "dpmpp_2m"):
        sample(workdir, "--prompt=a", "--steps=4", f"--solver={solver}", "--output", tmp_path / solver)
        (path,) = (tmp_path / solver).glob("*.json")
        assert json.loads(path.read_text())["solver"] == solver
        made[solver] = video.decode(path.with_suffix(".mp4"))
    assert (made["euler"] != made["dpmpp_2m"]).any()


def test_memory_is_told_without_weights_and_kept_as_a_table(workdir, tmp_path, capsys):
    sample(workdir, "--memory", "--mode=i2v_head", "--steps=4", "--solver=heun", "--output", tmp_path)
    table = (tmp_path / "memory.md").read_text()
    assert table in capsys.readouterr().out and "| denoise |" in table
    figures = json.loads((tmp_path / "memory.json").read_text())
    assert 0 < figures["peak_offloaded"] < figures["peak"]
    assert figures["calls"] == 3 * (2 * 4 - 1) and "21 calls of the video model" in table
    assert [p["name"] for p in figures["programs"]] == ["encode head_image", "denoise", "decode"]


def test_an_image_model_makes_the_first_frames_once(tmp_path, capsys):
    config = files.write(tmp_path)
    flags = ("sample", f"--config={config}", "--cache=", "--mode=t2i2v", "--prompt=a", "--prompt=b", "--seed=4")
    out = tmp_path / "out"
    assert main([*flags, f"--output={out}"]) == 0
    stills = sorted((out / "first_frames").glob("*.png"))
    assert [p.stem for p in stills] == ["0000-a", "0001-b"] and Image.open(stills[0]).size == (32, 32)
    refs = [flag for still in stills for flag in ("--ref", str(still))]
    again = [f for f in flags if f != "--mode=t2i2v"]
    assert main([*again, "--mode=i2v_head", *refs, f"--output={tmp_path / 'by_hand'}"]) == 0
    for still in stills:
        made, by_hand = (video.decode(folder / f"{still.stem}.mp4") for folder in (out, tmp_path / "by_hand"))
        np.testing.assert_array_equal(made, by_hand)
    before = [p.stat().st_mtime_ns for p in stills]
    (out / "0001-b.mp4").unlink()
    capsys.readouterr()
    assert main([*flags, f"--output={out}"]) == 0
    assert "1 made now" in capsys.readouterr().out
    assert [p.stat().st_mtime_ns for p in stills] == before
