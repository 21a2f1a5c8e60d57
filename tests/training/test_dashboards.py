"""What dashboards are given, read back from the files that they write."""

import io
import json
import re
import struct

import numpy as np
import pytest
from PIL import Image

from osjax.data import video
from osjax.errors import UserError
from osjax.training.dashboards import Sample, TensorBoard, WandB

CONFIG = {"optimizer": {"lr": 0.5}}
LINEAGE = {"base": "hf://a/b@c", "data_set": "0123456789abcdef"}


@pytest.fixture
def samples(tmp_path):
    """Two samples of four frames each, on disk."""
    made = []
    for number, prompt in enumerate(("a red *circle*", "<b>two</b>")):
        frames = np.full((4, 16, 16, 3), 40, np.uint8)
        for t in range(4):
            frames[t, :, 4 * t : 4 * t + 4] = 200
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(video.encode(frames, 8))
        made.append(Sample(path, prompt, frames, 8))
    return made


def shown(board, samples):
    """A stage from its begin to its end, on a dashboard."""
    board.begin("one", CONFIG, LINEAGE)
    board.show("one", 0, samples)
    for step in range(2):
        board.write("one", step, {"loss": 1.0 - step, "batch": "8x4", "bad": float("nan")})
    board.close()


def records(data, begin, header):
    """The records of a file, each (length, ..., content), and the length of what stands between."""
    while begin < len(data):
        (length,) = struct.unpack_from("<Q", data, begin)
        yield data[begin + header : begin + header + length]
        begin += header + length + 4


def test_tensorboard_has_numbers_moving_samples_prompts_config_and_lineage(tmp_path, samples):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    shown(TensorBoard(tmp_path / "board"), samples)
    (path,) = (tmp_path / "board" / "one").iterdir()
    events = [event_pb2.Event.FromString(record) for record in records(path.read_bytes(), 0, 12)]
    values = [(event.step, value) for event in events for value in event.summary.value]
    assert [(step, v.simple_value) for step, v in values if v.tag == "loss"] == [(0, 1.0), (1, 0.0)]
    assert not any(value.tag == "bad" for _, value in values)
    texts = {value.tag: value.tensor.string_val[0].decode() for _, value in values if value.tensor.string_val}
    assert texts["prompts/0/text_summary"] == "a red *circle*" and texts["prompts/1/text_summary"] == "<b>two</b>"
    assert json.loads(texts["config/text_summary"]) == CONFIG and json.loads(texts["lineage/text_summary"]) == LINEAGE
    gifs = {value.tag: value.image.encoded_image_string for _, value in values if value.image.encoded_image_string}
    assert gifs.keys() == {"samples/0", "samples/1"}
    with Image.open(io.BytesIO(gifs["samples/1"])) as gif:
        assert gif.n_frames == 4 and gif.info["duration"] == 120 and gif.size == (16, 16)  # in tens of milliseconds
        gif.seek(3)
        frame = np.asarray(gif.convert("RGB"))
    assert np.abs(frame.astype(int) - samples[1].video_THWC[3]).max() < 40


def test_a_run_that_goes_on_replaces_the_steps_that_it_does_again(tmp_path, samples):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    board = TensorBoard(tmp_path)
    board.begin("one", CONFIG, LINEAGE)
    board.write("one", 7, {"loss": 1.0})
    board.close()
    (path,) = (tmp_path / "one").iterdir()
    events = [event_pb2.Event.FromString(record) for record in records(path.read_bytes(), 0, 12)]
    assert any(event.session_log.status == event_pb2.SessionLog.START and event.step == 7 for event in events)


def test_w_and_b_has_numbers_samples_prompts_config_and_lineage_offline(tmp_path, samples, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    shown(WandB("project", tmp_path / "run", {"stages": {"one": CONFIG}}), samples)
    (path,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    kept = list(offline(path.read_bytes()))
    (begun,) = (record.run for record in kept if record.WhichOneof("record_type") == "run")
    assert begun.project == "project" and begun.display_name == "run"
    assert {row.key: row.value_json for row in begun.config.update}["stages"] == json.dumps(
        {"one": CONFIG}, separators=(",", ":")
    )
    configs = {row.key: json.loads(row.value_json) for record in kept for row in record.config.update}
    assert configs["lineage"] == {"one": LINEAGE}
    lines = [{".".join(row.nested_key) or row.key: json.loads(row.value_json) for row in r.history.item} for r in kept]
    assert [line["one/loss"] for line in lines if "one/loss" in line] == [1.0, 0.0]
    (media,) = (line for line in lines if "one/samples.videos" in line)
    assert media["one/samples.captions"] == [sample.prompt for sample in samples]
    for row, sample in zip(media["one/samples.videos"], samples, strict=True):
        assert (path.parent / "files" / row["path"]).read_bytes() == sample.path.read_bytes()


def test_a_run_goes_on_at_w_and_b_under_its_id_and_a_new_folder_of_the_same_name_has_another(tmp_path):
    from osjax.training import dashboards

    ids = [dashboards._wandb_id(tmp_path / place / "run", "run") for place in "aab"]
    assert ids[0] == ids[1] != ids[2] and all(re.fullmatch("run-[0-9a-f]{8}", one) for one in ids)


def test_w_and_b_that_does_not_begin_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(UserError, match="wandb does not begin .*: `wandb login`, or set WANDB_MODE=offline"):
        WandB("a/b:c", tmp_path / "run", {})


def offline(data):
    """The records of an offline run's file: a head of 7 bytes, then LevelDB's log in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    begin, whole = 7, b""
    while begin + 7 <= len(data):
        left = 2**15 - begin % 2**15
        if left < 7:
            begin += left
            continue
        length, kind = struct.unpack_from("<HB", data, begin + 4)
        whole += data[begin + 7 : begin + 7 + length]
        begin += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""
