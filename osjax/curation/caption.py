"""Captions from any server that speaks the OpenAI chat protocol, in the report's six aspects.

Source: Open-Sora 2.0 report, section 2 (main subject, its action, background, lighting and atmosphere, camera, style).
A clip that the server's model cannot describe is dropped with its reason. A server that fails stops the step, which
goes on with the clips that are left when it is run again.
"""

import base64
import io
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from PIL import Image

from osjax.curation import sample
from osjax.curation.isolate import Pool, need
from osjax.curation.tables import Row
from osjax.errors import UserError

ASPECTS = ("subject", "action", "background", "lighting", "camera", "style")
PROMPT = """These {count} images are frames of one video clip, in order. Describe the clip in six aspects:
- subject: who or what the clip is about, with what can be seen of it
- action: what happens and how things move, from beginning to end
- background: the place and what else is there
- lighting: light and atmosphere
- camera: framing, angle and movement of the camera
- style: such as realistic footage, animation, black and white
Say only what can be seen, in plain sentences. Answer with one JSON object that has exactly these six keys, each with a
string, and nothing else."""


@dataclass(frozen=True)
class Captioning:
    """Which server captions clips, and how it is asked.

    url: base of the server, such as http://127.0.0.1:8000/v1. model: the name that it knows its model by. key_variable:
    the environment variable with its key. prompt: of a request, `{count}` stands for the number of frames. frames:
    shown of each clip. side: pixels of their long side. per_minute: requests sent by one process at most, 0
    for no limit. parallel: requests under way at once. retries: of a request, waiting longer each time, or as the
    server says. timeout: seconds a request may take. tokens: of an answer.
    """

    url: str | None = None
    model: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    frames: int = 4
    side: int = 512
    per_minute: float = 0.0
    parallel: int = 4
    retries: int = 6
    timeout: float = 120.0
    tokens: int = 800
    prompt: str = PROMPT

    def __post_init__(self):
        if self.url is not None and urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"url {self.url!r} is not http:// or https://: give the server's base, ending in /v1")


def work(rows: Sequence[Row], pool: Pool, options: Captioning) -> list[Row]:
    """Rows with a caption as `text` and its six parts as `caption_<aspect>`; UserError when the server fails.

    rows: with `path`. pool: where frames are decoded. options: of the server and the requests.
    """
    openai = need("openai", "data")
    shown = pool.each(partial(_look, options=options), rows)
    gate = _Gate(options.per_minute)
    with (
        openai.OpenAI(
            base_url=options.url,
            api_key=os.environ.get(options.key_variable, "none"),  # local servers ask for no key
            max_retries=options.retries,
            timeout=options.timeout,
        ) as client,
        ThreadPoolExecutor(options.parallel) as threads,
    ):
        return list(threads.map(lambda row: row if row.get("reason") else _ask(row, client, gate, options), shown))


def _look(row: Row, options: Captioning) -> list[Row]:
    pictures = []
    for frame_HWC in sample.uniform(row, options.frames):
        image, file = Image.fromarray(frame_HWC), io.BytesIO()
        image.thumbnail((options.side, options.side))
        image.save(file, "JPEG", quality=85)
        pictures.append(base64.b64encode(file.getvalue()).decode())
    return [{**row, "pictures": pictures}]


def _ask(row: Row, client, gate: "_Gate", options: Captioning) -> Row:
    import openai

    row = dict(row)
    pictures = row.pop("pictures")
    content = [{"type": "text", "text": options.prompt.format(count=len(pictures))}]
    content += [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{p}"}} for p in pictures]
    gate.wait()
    try:
        answer = client.chat.completions.create(
            model=options.model,
            messages=[{"role": "user", "content": content}],
            max_tokens=options.tokens,
            temperature=0,
        )
    except openai.BadRequestError as error:  # this clip, such as one that the server's policy refuses
        return {**row, "reason": f"the caption server refuses it: {_line(error)}"}
    except openai.OpenAIError as error:
        raise UserError(f"caption server {options.url} fails ({_line(error)}): run the same command again") from error
    try:
        aspects = parse(answer.choices[0].message.content if answer.choices else None)
    except ValueError as error:
        return {**row, "reason": f"no caption: {error}"}
    parts = {f"caption_{name}": text for name, text in aspects.items()}
    return {**row, **parts, "text": " ".join(aspects.values())}


def parse(answer: str | None) -> dict[str, str]:
    """The six aspects, as sentences, from a model's answer; words around the JSON object are let be.

    ValueError that says what is wrong with it.
    """
    answer = answer or ""
    begin, end = answer.find("{"), answer.rfind("}")
    if begin < 0 or end < begin:
        raise ValueError(f"the answer holds no JSON object: {_line(answer)!r}")
    try:
        said = json.loads(answer[begin : end + 1], strict=False)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the answer is not JSON ({error})") from error
    aspects = {}
    for name in ASPECTS:
        text = said.get(name)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the answer lacks {name}")
        text = " ".join(text.split())
        aspects[name] = text if text.endswith((".", "!", "?")) else text + "."
    return aspects


def _line(error: object) -> str:
    line = " ".join(str(error).split())
    return line[:200]


class _Gate:
    """Lets one caller through every 60 / `per_minute` seconds."""

    def __init__(self, per_minute: float):
        self._step = 60 / per_minute if per_minute else 0.0
        self._lock, self._next = threading.Lock(), 0.0

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._step
        time.sleep(at - now)
