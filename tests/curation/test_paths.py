"""What a table or a folder names stays inside it: links, pipes, devices and names that are none."""

import os

import pytest

from osjax.__main__ import main
from osjax.curation import tables
from osjax.data import clips, dataset, table

SECRET = "what nobody should train on"


@pytest.fixture
def folder(tmp_path):
    """Three clips, and beside their folder a text and a clip that are not theirs."""
    made = tmp_path / "clips"
    clips.write_clips(made, clips.specs(3, 0, clips.combinations()), 32, 8, 8)
    (made / "clips.csv").unlink(missing_ok=True)
    for n in range(3):
        (made / f"0000{n}.txt").write_text(f"clip {n}")
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "secret.mp4").write_bytes((made / "00000.mp4").read_bytes())
    return made


def built(source, out, capsys):
    """Captions of the data set that is built, and the reasons of what was dropped."""
    assert main(["data", "build", str(source), str(out)]) == 0
    made = capsys.readouterr().out.split("data set: ")[1].strip()
    dropped = out / "dropped.parquet"
    reasons = [row["reason"] for row in tables.read(dropped)] if dropped.exists() else []
    return [record["text"].decode() for record in dataset.open_source(made)], reasons


def test_a_caption_that_is_a_link_out_of_the_folder_is_none(folder, tmp_path, capsys):
    (folder / "00001.txt").unlink()
    (folder / "00001.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "00002.txt").unlink()
    (folder / "00002.txt").symlink_to(folder / "00000.txt")  # inside: as good as a file
    texts, reasons = built(folder, tmp_path / "out", capsys)
    assert texts == ["clip 0", "clip 0"]
    assert len(reasons) == 1 and "secret.txt" not in reasons[0] and "00001.txt lies outside of" in reasons[0]
    # The control: with the folder around both as the root, that very caption is read.
    assert main(["data", "build", str(folder), str(tmp_path / "all"), f"--root={tmp_path}"]) == 0
    made = capsys.readouterr().out.split("data set: ")[1].strip()
    assert SECRET.encode() in [record["text"] for record in dataset.open_source(made)]


@pytest.mark.parametrize("kind", ["fifo", "device", "dead link", "loop", "folder", "huge"])
def test_captions_that_are_no_files_of_text_are_named_and_hold_nothing_up(kind, folder, tmp_path, capsys):
    path = folder / "00001.txt"
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "dead link":
            path.symlink_to(folder / "gone")
        case "loop":
            path.symlink_to(path)
        case "folder":
            path.mkdir()
        case "huge":
            with path.open("wb") as file:
                file.truncate(2**31)
    texts, reasons = built(folder, tmp_path / "out", capsys)
    assert texts == ["clip 0", "clip 2"]
    assert len(reasons) == 1 and "00001.txt" in reasons[0] and "no caption: " in reasons[0]


def test_videos_that_are_pipes_devices_links_to_nothing_or_elsewhere_are_named_and_the_others_go_on(
    folder, tmp_path, capsys, caplog
):
    os.mkfifo(folder / "pipe.mp4")
    (folder / "dead.mp4").symlink_to(folder / "gone.mp4")
    (folder / "device.mp4").symlink_to("/dev/zero")
    (folder / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "out.txt").write_text("secret clip")
    texts, reasons = built(folder, tmp_path / "out", capsys)
    assert texts == ["clip 0", "clip 1", "clip 2"]
    assert len(reasons) == 1 and "secret.mp4" not in reasons[0] and "out.mp4 lies outside of" in reasons[0]
    for name in ("pipe", "dead", "device"):
        assert f"{name}.mp4 is left out" in caplog.text


BAD = {
    "../secret.mp4": "lies outside of",
    "link.mp4": "lies outside of",
    "/etc/passwd": "lies outside of",
    "file:///etc/passwd": "does not exist",
    "simplecache::file:///etc/passwd": "does not exist",
    "http://127.0.0.1:9/a.mp4": "does not exist",
    "pipe.mp4": "is no file",
    "x" * 5000 + ".mp4": "File name too long",
    "": "path is missing",
}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_one_bad_row_of_a_table_is_dropped_with_its_reason_and_the_others_go_on(folder, tmp_path, suffix, capsys):
    os.mkfifo(folder / "pipe.mp4")
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    rows = [{"path": path, "text": "bad"} for path in BAD]
    rows[4:4] = [{"path": f"0000{n}.mp4", "text": f"clip {n}"} for n in range(3)]
    rows.append({"path": "00000.mp4", "text": "bad numbers", "height": "tall"})
    rows.append({"path": "00000.mp4", "text": "bad numbers", "height": "1e300"})
    tables.write(folder / f"t.{suffix}", rows)
    texts, reasons = built(folder / f"t.{suffix}", tmp_path / "out", capsys)
    assert texts == ["clip 0", "clip 1", "clip 2"]
    expected = [*BAD.values(), "height is 'tall', not a number", "height is '1e300', not a number"]
    for reason, words in zip(reasons, expected, strict=True):
        assert words in reason or "is no path" in reason and "too long" in words, (reason, words)
    probed = tmp_path / "probed.parquet"
    argv = ["data", "probe", str(folder / f"t.{suffix}"), str(probed)]
    free = [f"--config.probe.{name}=0" for name in ("min_seconds", "min_bits_per_pixel", "min_fps")]
    assert main([*argv, *free, "--config.probe.drop_profiles=()"]) == 0, capsys.readouterr().err
    assert len(table.read(probed)) == 3, [r["reason"] for r in tables.read(tmp_path / "probed.dropped.parquet")]
    assert len(tables.read(tmp_path / "probed.dropped.parquet")) == len(expected)
