"""Bodies of requests: JSON or a form, to the fields of a request and the files that came with it."""

import base64
import binascii
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from osjax.serve.answers import Refused

FILES = ("input_reference", "last_reference")
VIDEO = "video"  # that is made longer
KINDS = ("image_url", "video_id", "file_id")  # of a reference that is no file
SETTINGS = "/v1/videos/settings"  # whose body is a file
IN_MEMORY = 2**20  # bytes of a file, which are kept on the disk where there are more
FIELDS = 64  # of a form
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Given:
    """A reference: a file, which may lie on the disk, or the id of a video whose last frame is meant."""

    file: BinaryIO | None = None
    video_id: str | None = None


async def read(request: Request, kind: type[Model], names: tuple[str, ...] = FILES) -> tuple[Model, list[Given]]:
    """The fields of a request, and its references, first and last.

    kind: what it asks for. names: of the references that it may have.

    `Refused` that names the field for what cannot be read.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type in ("multipart/form-data", "application/x-www-form-urlencoded"):
        fields, references = await _form(request, names)
    elif media_type in ("application/json", ""):
        fields = await run_in_threadpool(read_json, await request.body())
        references = {name: fields.pop(name) for name in names if fields.get(name) is not None}
    else:
        raise Refused(415, f"content type {media_type[:80]!r} is not read: send JSON or multipart/form-data")
    if references.keys() == {"last_reference"} and fields.get("mode") is None:
        fields["mode"] = "i2v_tail"
    return validated(kind, fields), [_given(name, references[name]) for name in names if name in references]


def validated(kind: type[Model], fields: Mapping[str, Any]) -> Model:
    """The request of some fields. `Refused` that names the first field that is wrong."""
    try:
        return kind.model_validate(fields)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])[:100]
        words = {"extra_forbidden": "is not a field of this request: leave it out"}.get(first["type"], first["msg"])
        raise Refused(400, f"{name}: {words}", "invalid_value", name or None) from problem


async def _form(request: Request, names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        form = await request.form(max_files=len(names), max_fields=FIELDS, max_part_size=2 << 20)
    except HTTPException as problem:
        raise Refused(400, f"the form cannot be read: {problem.detail}") from problem
    except (ValueError, LookupError, AssertionError) as problem:  # of charsets and boundaries that are none
        raise Refused(400, "the form cannot be read: send multipart/form-data with a boundary") from problem
    fields: dict[str, Any] = {}
    references: dict[str, Any] = {}
    for name, value in form.multi_items():
        base, _, inner = name.partition("[")
        if not isinstance(value, str):
            if name not in names:
                raise Refused(400, f"{name[:100]}: is no file of this request: leave it out", param=name[:100])
            if name in references:
                raise Refused(400, f"{name} comes twice: send it once", param=name)
            references[name] = value.file  # its end is that of the last who holds it
        elif base in names and inner.endswith("]"):
            references.setdefault(base, {})
            if not isinstance(references[base], dict):
                raise Refused(400, f"{base} comes twice: send it once", param=base)
            references[base][inner[:-1]] = value
        elif name in names:
            references[name] = value
        elif name in fields:
            raise Refused(400, f"{name[:100]} comes twice: send it once", param=name[:100])
        else:
            fields[name] = value
    return fields, references


async def spooled(request: Request) -> BinaryIO:
    """The body of a request as a file, on the disk where it is large."""
    file: BinaryIO = tempfile.SpooledTemporaryFile(IN_MEMORY)
    async for part in request.stream():
        await run_in_threadpool(file.write, part)
    file.seek(0)
    return file


def read_json(body: bytes) -> dict[str, Any]:
    """The object in a body. `Refused` where it is none."""
    try:
        fields = json.loads(body.decode("utf-8")) if body else {}
    except (ValueError, RecursionError) as problem:
        raise Refused(400, "the body is no JSON: send an object") from problem
    if not isinstance(fields, dict):
        raise Refused(400, "the body is no JSON object: send one")
    return fields


def _given(name: str, value: Any) -> Given:
    if hasattr(value, "read"):
        return Given(file=value)
    if isinstance(value, dict) and name == VIDEO:
        if set(value) != {"id"} or not isinstance(value["id"], str):
            raise Refused(400, f"{name}: send a file, or an object with the id of a video", "invalid_value", name)
        return Given(video_id=value["id"])
    if not isinstance(value, dict):
        raise Refused(400, f"{name}: send a file, or an object with image_url or video_id", "invalid_value", name)
    if len(value) != 1 or not set(value) <= set(KINDS) or not isinstance(next(iter(value.values())), str):
        raise Refused(400, f"{name}: an object has one text, image_url or video_id", "invalid_value", name)
    if "video_id" in value:
        return Given(video_id=value["video_id"])
    if "file_id" in value:
        raise Refused(400, f"{name}: this server keeps no files of its own: send the file", "invalid_value", name)
    url = value["image_url"]
    head, comma, data = url.partition(",")
    if not comma or not head.lower().startswith("data:") or not head.lower().endswith(";base64"):
        raise Refused(400, f"{name}: no URL is fetched, send the file or a data: URL in base64", "invalid_value", name)
    try:
        return Given(file=io.BytesIO(base64.b64decode(data, validate=True)))
    except (binascii.Error, ValueError) as problem:
        raise Refused(400, f"{name}: the data: URL is no base64", "invalid_value", name) from problem
