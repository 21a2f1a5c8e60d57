"""Batches: what is in them, who reads which rows, exact resume, and clips that do not decode."""

import json
import logging

import numpy as np
import pytest

from osjax.data import clips, frames, loader, transforms, video
from osjax.errors import UserError

COUNT = 10


@pytest.fixture(scope="module")
def source():
    """Records as a data set gives them."""
    chosen = clips.specs(COUNT, 0, clips.combinations())
    return [_record(i, video.encode(clips.render(s, 32), 8), s.caption) for i, s in enumerate(chosen)]


def _record(index, content, text, num_frames=8, fps=8.0):
    path = f"{index}.mp4".encode()
    return {"video": content, "text": text.encode(), "path": path, "num_frames": num_frames, "fps": fps}


def _batches(source, batch_size=4, seed=0, **kwargs):
    return loader.batches(len(source), loader.ClipReader(source, 8, 32, 32), batch_size, seed, **kwargs)


def _order(iterator, count):
    return [list(map(int, next(iterator)["index"])) for _ in range(count)]


def test_a_batch_holds_scaled_pixels_captions_and_indices(source):
    batch = next(_batches(source))
    assert batch["video"].shape == (4, 8, 32, 32, 3) and batch["video"].dtype == np.float32
    assert -1 <= batch["video"].min() < -0.2 and 0.2 < batch["video"].max() <= 1
    for pixels, text, index in zip(batch["video"], batch["text"], batch["index"], strict=True):
        assert str(text) == source[index]["text"].decode()
        np.testing.assert_allclose(pixels, video.decode(source[index]["video"]) / 127.5 - 1, atol=1e-6)


def test_clips_of_another_size_are_resized_and_cut_in_time(source):
    batch = next(loader.batches(COUNT, loader.ClipReader(source, 5, 16, 24), 2, 0))
    assert batch["video"].shape == (2, 5, 16, 24, 3)
    first = video.decode(source[batch["index"][0]]["video"], 5)
    want = transforms.resize_crop_clip(first, 16, 24) / 127.5 - 1
    np.testing.assert_allclose(batch["video"][0], want, atol=1e-5)


def test_a_pass_reads_every_clip_once_in_an_order_of_its_own(source):
    order = sum(_order(_batches(source, batch_size=5), 4), [])
    assert sorted(order[:COUNT]) == sorted(order[COUNT:]) == list(range(COUNT))
    assert order[:COUNT] != order[COUNT:] and order[:COUNT] != list(range(COUNT))


def test_the_order_depends_on_the_seed_alone(source):
    assert _order(_batches(source, threads=1), 5) == _order(_batches(source, threads=4), 5)
    assert _order(_batches(source), 5) != _order(_batches(source, seed=1), 5)


def test_processes_share_out_the_batches_of_one_process(source):
    whole = _order(_batches(source), 5)
    parts = [_order(_batches(source, process_index=i, process_count=2), 5) for i in range(2)]
    for step in range(5):
        assert sorted(parts[0][step] + parts[1][step]) == sorted(whole[step])
    assert parts[0] != parts[1]


def test_a_saved_place_resumes_exactly_and_survives_json(source):
    iterator = _batches(source)
    _order(iterator, 3)
    place = iterator.get_state()
    place = json.loads(json.dumps(place))
    want = [next(iterator) for _ in range(4)]
    again = _batches(source)
    again.set_state(place)
    for expected in want:
        got = next(again)
        np.testing.assert_array_equal(got["video"], expected["video"])
        assert list(got["index"]) == list(expected["index"]) and list(got["text"]) == list(expected["text"])
    fresh = _batches(source)
    assert _order(fresh, 4) != [list(b["index"]) for b in want]


def test_a_broken_clip_is_replaced_counted_and_named_once(source, caplog):
    broken = list(source)
    broken[3] = {**source[3], "video": b"no video"}
    with caplog.at_level(logging.WARNING):
        runs = []
        for _ in range(2):
            reader = loader.ClipReader(broken, 8, 32, 32)
            iterator = loader.batches(COUNT, reader, 5, 0)
            runs.append(_order(iterator, 6))
            assert reader.broken == {3: "3.mp4"}
    assert runs[0] == runs[1]
    first = sum(runs[0][:2], [])
    assert 3 not in first and sorted(first) == sorted([4, *(i for i in range(COUNT) if i != 3)])
    assert sum("3.mp4" in record.getMessage() for record in caplog.records) == 2  # once for each reader


@pytest.fixture(scope="module")
def long_clip():
    """40 frames at 48 per second; a frame's grey says its number."""
    grey = np.repeat(6 * np.arange(40, dtype=np.uint8), 16 * 16 * 3).reshape(40, 16, 16, 3)
    return [_record(0, video.encode(grey, 48, crf=1), "grey", 40, 48.0)]


def _numbers(pixels_THWC):
    return np.round((pixels_THWC.mean((1, 2, 3)) + 1) * 127.5 / 6).astype(int).tolist()


def test_a_fast_clip_keeps_every_second_frame_below_the_highest_rate(long_clip):
    assert _numbers(loader.ClipReader(long_clip, 5, 16, 16, fps_max=30)(0)["video"]) == frames.pick(40, 5, 2).tolist()
    assert _numbers(loader.ClipReader(long_clip, 5, 16, 16)(0)["video"]) == [0, 1, 2, 3, 4]


def test_random_starts_vary_from_pass_to_pass_and_repeat_with_the_seed_and_the_number_of_processes(long_clip):
    reader = loader.ClipReader(long_clip, 5, 16, 16, random_start=True)

    def starts(seed=0, process_index=0, process_count=1):
        iterator = loader.batches(
            1, reader, 2, seed, process_index=process_index, process_count=process_count, threads=1
        )
        return [_numbers(pixels)[0] for _ in range(4) for pixels in next(iterator)["video"]]

    alone = starts()
    assert len(set(alone)) > 3 and alone == starts() != starts(seed=1)
    assert alone[0::2] == starts(process_count=2) and alone[1::2] == starts(process_index=1, process_count=2)


def test_an_error_in_a_reading_thread_reaches_the_caller_as_it_is():
    broken = [_record(i, b"no video", "") for i in range(3)]
    with pytest.raises(UserError, match="do not decode"):
        next(loader.batches(3, loader.ClipReader(broken, 8, 32, 32), 3, 0))


def test_data_of_broken_clips_alone_stop_with_an_error_that_names_one(source):
    broken = [{**record, "video": b"no video"} for record in source]
    with pytest.raises(UserError, match=r"do not decode.*\.mp4"):
        loader.ClipReader(broken, 8, 32, 32)(0)


def test_batches_that_cannot_be_made_are_refused(source):
    with pytest.raises(UserError, match="does not divide over 3 processes"):
        _batches(source, process_count=3)
    with pytest.raises(UserError, match="no records"):
        _batches([])


def test_cached_features_are_read_by_the_same_loader():
    records = [{"latents": np.full((1, 2, 2, 4), i, np.float32), "text": f"clip {i}".encode()} for i in range(6)]
    batch = next(loader.batches(6, loader.read_features(records), 3, 0))
    assert batch["latents"].shape == (3, 1, 2, 2, 4)
    assert [str(t) for t in batch["text"]] == [f"clip {int(x[0, 0, 0, 0])}" for x in batch["latents"]]
