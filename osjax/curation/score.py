"""Scores of clips: motion, blur, camera jitter, text, beauty, and a hash that finds near-duplicates.

Source: Open-Sora 2.0 report, section 2 and appendix (vmafmotion of libavfilter; variance of OpenCV's Laplacian on five
frames by majority; PySceneDetect's change from frame to frame; text boxes with confidence > 0.7; CLIP + MLP on the
first, middle and last frame).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import av
import numpy as np

from osjax.curation import frames, sample
from osjax.curation.isolate import Pool, need
from osjax.curation.tables import Row

METRICS = ("motion", "jitter", "blur", "hash", "text_area", "aesthetic")
SAMPLED = 5  # frames for blur; the first, middle and last of them are hashed
CONFIDENT = 0.7  # of the OCR
JITTER_SIDE = 256  # pixels; PySceneDetect scales frames down to about this width itself


@dataclass(frozen=True)
class Scoring:
    """metrics: which of METRICS. text_area needs osjax[ocr], aesthetic a score function given to `work`."""

    metrics: tuple[str, ...] = ("motion", "jitter", "blur", "hash")

    def __post_init__(self):
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise ValueError(f"metrics {', '.join(unknown) or '()'}: choose from {', '.join(METRICS)}")

    def check(self) -> None:
        """UserError when a library that the metrics need is not there, before any clip is looked at."""
        for metric, module, extra in (
            ("jitter", "scenedetect", "data"),
            ("blur", "cv2", "data"),
            ("hash", "imagehash", "data"),
            ("text_area", "rapidocr", "ocr"),
            ("text_area", "onnxruntime", "ocr"),  # runs RapidOCR's networks, which come with its wheel
        ):
            if metric in self.metrics:
                need(module, extra)


Beauty = Callable[[np.ndarray], np.ndarray]


def work(rows: Sequence[Row], pool: Pool, options: Scoring, beauty: Beauty | None = None) -> list[Row]:
    """Rows with a column for each metric. beauty: uint8 frames (N, H, W, 3) -> N scores, called in this process."""
    if ("aesthetic" in options.metrics) != (beauty is not None):
        raise ValueError("metric aesthetic and a function that gives it belong together")
    scored = pool.each(partial(score, options=options), rows)
    if beauty is None:
        return scored
    return [_add_beauty(row, beauty) for row in scored]


def _add_beauty(row: Row, beauty: Beauty) -> Row:
    if row.get("reason"):
        return row
    row = dict(row)
    frames_NHWC = np.stack([np.frombuffer(data, np.uint8).reshape(row["shown_size"]) for data in row.pop("shown")])
    del row["shown_size"]
    return {**row, "aesthetic": float(np.mean(beauty(frames_NHWC)))}


def score(row: Row, options: Scoring) -> list[Row]:
    """One row with its scores; UserError for clips that cannot be decoded."""
    wanted, found = options.metrics, {}
    if "motion" in wanted or "jitter" in wanted:
        found |= _moving(row["path"], "motion" in wanted, "jitter" in wanted)
    if set(wanted) & {"blur", "hash", "text_area", "aesthetic"}:
        images = [frame.to_ndarray(format="rgb24") for frame in sample.uniform(row, SAMPLED)]
        first_middle_last = [images[0], images[SAMPLED // 2], images[-1]]
        if "blur" in wanted:
            found["blur"] = blur(images)
        if "hash" in wanted:
            found["hash"] = fingerprint(first_middle_last)
        if "text_area" in wanted:
            found["text_area"] = text_area(images[SAMPLED // 2])
        if "aesthetic" in wanted:
            found["shown"] = [image.tobytes() for image in first_middle_last]
            found["shown_size"] = images[0].shape
    return [{**row, **found}]


def _moving(path: str, motion: bool, jitter: bool) -> Row:
    """Scores over all frames, in one pass."""
    chain, changes, motions = None, _Changes() if jitter else None, []
    for seconds, frame in frames.timed(path):
        if motion:
            chain = chain or frames.graph(frame, [("format", "yuv420p"), ("vmafmotion", "")])
            motions += [float(f.metadata["lavfi.vmafmotion.score"]) for f in frames.push(chain, frame, seconds)]
        if jitter:
            changes.add(frame)
    found = {}
    if motion:
        found["motion"] = float(np.mean(motions[1:])) if len(motions) > 1 else 0.0  # the first has none before it
    if jitter:
        found["jitter"] = changes.mean()
    return found


class _Changes:
    """PySceneDetect's content value of every frame against the one before."""

    def __init__(self):
        scenedetect = need("scenedetect", "data")
        self._detector = scenedetect.ContentDetector()
        self._detector.stats_manager = self._stats = scenedetect.StatsManager()
        self._time, self._count = scenedetect.FrameTimecode, 0

    def add(self, frame: av.VideoFrame) -> None:
        scale = min(1.0, JITTER_SIDE / max(frame.width, frame.height))
        small = frame.reformat(max(2, round(frame.width * scale)), max(2, round(frame.height * scale)), "bgr24")
        self._detector.process_frame(self._time(self._count, 24.0), small.to_ndarray())
        self._count += 1

    def mean(self) -> float:
        key = self._detector.FRAME_SCORE_KEY
        values = [self._stats.get_metrics(self._time(i, 24.0), [key])[0] for i in range(1, self._count)]
        return float(np.mean(values)) if values else 0.0


def blur(images: Sequence[np.ndarray]) -> float:
    """Sharpness: median over frames of the variance of the Laplacian of grey uint8 (H, W, 3) frames; low is blurred.

    The median of five is below a threshold just when three of five frames are: the report's majority vote.
    """
    cv2 = need("cv2", "data")
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    return float(np.median([cv2.Laplacian(image_HW, cv2.CV_64F).var() for image_HW in grey]))


def fingerprint(images: Sequence[np.ndarray]) -> str:
    """Perceptual hash of three frames, 16 hex digits each."""
    from PIL import Image

    imagehash = need("imagehash", "data")
    return "".join(str(imagehash.phash(Image.fromarray(image))) for image in images)


@lru_cache(1)
def _reader():
    settings = {"Global.log_level": "error", "EngineConfig.onnxruntime.intra_op_num_threads": 1}
    return need("rapidocr", "ocr").RapidOCR(params=settings)


def text_area(image_HWC: np.ndarray) -> float:
    """Area of text that is read with confidence above 0.7, as a fraction of the frame's."""
    read = _reader()(image_HWC[..., ::-1])  # boxes and scores are None where there is no text
    boxes, scores = (() if found is None else found for found in (read.boxes, read.scores))
    area = sum(_area(np.asarray(corners)) for corners, score in zip(boxes, scores, strict=True) if score > CONFIDENT)
    return min(1.0, area / (image_HWC.shape[0] * image_HWC.shape[1]))


def _area(corners_N2: np.ndarray) -> float:
    x, y = corners_N2.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
