"""Refined prompts of a folder of samples: asked for once, kept beside the samples, and people's to change.

A batch that goes on where it was must find the same texts, and a text server says something else every time.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from osjax import atomic, json_file
from osjax.errors import UserError
from osjax.sampling import refine
from osjax.sampling.prompts import Request
from osjax.sampling.refine import TextServer
from osjax.sampling.settings import SampleSettings

log = logging.getLogger(__name__)
FILE = "refined.json"  # rule -> prompt -> fuller text


def read(server: TextServer, requests: Sequence[Request], settings: SampleSettings, folder: Path) -> list[Request]:
    """The requests with fuller texts; as they are where the server is none.

    server: is asked for what `folder` does not hold yet. requests: of a batch. settings, folder: of the samples.
    UserError where the server fails; what it said before that is kept.
    """
    if server.url is None:
        return list(requests)
    rule, path = refine.rule_of(settings.frames, bool(settings.condition.references)), folder / FILE
    texts = _kept(path)
    own = texts.setdefault(rule, {})
    for request in requests:
        if request.text not in own:
            own[request.text] = refine.refine(server, request.text, rule)
            folder.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, (json.dumps(texts, indent=2, ensure_ascii=False) + "\n").encode())
            log.warning("%r is refined to %r; change it in %s", request.text[:80], own[request.text], path)
    return [replace(request, text=own[request.text]) for request in requests]


def _kept(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    texts = json_file.read(path, "mend it, or remove it")
    rows = [row for row in texts.values() if isinstance(row, dict)]
    if len(rows) < len(texts) or not all(isinstance(t, str) and t.strip() for row in rows for t in row.values()):
        raise UserError(f"{path} holds other things than refined prompts: mend it, or remove it")
    return texts
