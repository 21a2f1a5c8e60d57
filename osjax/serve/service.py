"""What clients may have done: ask for videos, see them, stop them."""

import contextlib
import hashlib
import io
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from osjax.errors import UserError
from osjax.sampling import refine
from osjax.sampling.settings import T2I2V, SampleSettings
from osjax.serve import answers
from osjax.serve.answers import Refused
from osjax.serve.auth import Client
from osjax.serve.bodies import Given
from osjax.serve.catalog import Catalog, together
from osjax.serve.dispatch import Dispatcher
from osjax.serve.files import ID, LAST, Files, new_id
from osjax.serve.live import Board
from osjax.serve.options import ServerOptions
from osjax.serve.schema import CreateRequest, ExtendRequest, Refined, RefineRequest, VideoAnswer, VideoList, told
from osjax.serve.store import COMPLETED, QUEUED, RUNNING, Store, Video, variant
from osjax.serve.uploads import Uploads
from osjax.types import Json

log = logging.getLogger(__name__)
SEARCH = 200  # characters of a search


@dataclass(frozen=True)
class Service:
    """All that a server has. Its methods block, so they are called in threads."""

    options: ServerOptions
    catalog: Catalog
    store: Store
    files: Files
    uploads: Uploads
    board: Board
    dispatcher: Dispatcher

    def create(
        self, client: Client, request: CreateRequest, given: Sequence[Given], idempotency_key: str | None = None
    ) -> VideoAnswer:
        """Put what is asked for into the queue.

        client: who asks. request: what for. given: references. idempotency_key: the same one gives the same video.
        `Refused` for what cannot be made, or not now.
        """
        stamp = _stamp(request, given)
        if idempotency_key is not None and (again := self._again(client, idempotency_key, stamp)):
            return again
        self._room(request.priority, client)
        with contextlib.ExitStack() as kept, refused():
            paths = [kept.enter_context(self._file(client, one)) for one in given]
            kinds = tuple(self.uploads.look(path).kind for path in paths)
            request, extra = self._refined(request, kinds)
            asked = self.catalog.asked(request, kinds)
            videos, shown = [], asked.shown | extra
            for k in range(request.samples):
                settings = asdict(asked.settings) | {"seed": (asked.settings.seed + k) % 2**63}
                key = idempotency_key if k == 0 else None
                video = self._new(client, asked.model, asked.prompt, settings, shown, request.priority)
                videos.append(_with(video, references_count=len(paths), idempotency_key=key, request_hash=stamp))
            return self._put(client, videos, paths, asked.settings)

    def _refined(self, request: CreateRequest, kinds: tuple[str, ...]) -> tuple[CreateRequest, Json]:
        """(the request with what the text server says, what its answer says of that)."""
        if not request.refine and request.motion != "auto":
            return request, {}
        asked = self.catalog.asked(request.model_copy(update={"motion": None}), kinds)  # nobody is asked for nothing
        given = bool(asked.settings.condition.references)
        fuller = self.refine(RefineRequest(prompt=asked.prompt, given=given, still=asked.settings.frames == 1))
        changes = {"prompt": fuller.prompt} if request.refine else {}
        changes |= {"motion": fuller.motion} if request.motion == "auto" else {}
        return request.model_copy(update=changes), {"asked_prompt": asked.prompt} if request.refine else {}

    def refine(self, request: RefineRequest) -> Refined:
        """A fuller prompt by the text server. request: what for. `Refused` where there is none, or it fails."""
        server = self.options.refine
        if server.url is None:
            raise Refused(400, "no prompts are refined here: config.refine.url names a text server", "not_supported")
        with refused():
            prompt = told(request.prompt, "prompt", self.options.limits.prompt)
            if not prompt:
                raise ValueError("prompt is empty: write what to show")
        try:
            text = refine.refine(server, prompt, refine.rule_of(1 if request.still else 2, request.given))
            return Refined(prompt=text[: self.options.limits.prompt], motion=refine.motion(server, text))
        except UserError as problem:
            log.error("%s", problem)
            raise Refused(502, "the text server fails: make it without `refine`, or later", "text_server") from problem

    def remix(self, client: Client, id: str, prompt: str) -> VideoAnswer:
        """Make a video of another prompt with the settings, the seed and the references of one that there is.

        client: who asks. id: of that one. prompt: the new text. `Refused` for what cannot be made.
        """
        source = self._get(client, id)
        if "longer" in source.shown:
            raise Refused(400, "a video that was made longer keeps no references: make the first part anew", "longer")
        self._room(0, client)
        with refused():
            text = told(prompt, "prompt", self.options.limits.prompt)
            if not text:
                raise ValueError("prompt is empty: write what to show")
            self.catalog.pipe(source.model)
            video = self._new(client, source.model, text, source.settings, source.shown, 0)
            video = _with(video, references_count=source.references_count, remixed_from=source.id)
            folder = self.files.folder(video.id)
            folder.mkdir(parents=True)
            count = source.references_count
            for old, new in zip(self.files.references(id, count), self.files.references(video.id, count), strict=True):
                shutil.copyfile(old, new)
            return self._queue(client, [video])

    def extend(
        self, client: Client, request: ExtendRequest, given: Sequence[Given], idempotency_key: str | None = None
    ) -> VideoAnswer:
        """Make a video longer.

        client: who asks. request: what for. given: the video, which may be a file. idempotency_key: the same one gives
        the same video. `Refused` for what cannot be made, or not now.
        """
        stamp = _stamp(request, given)
        if idempotency_key is not None and (again := self._again(client, idempotency_key, stamp)):
            return again
        if len(given) != 1:
            raise Refused(400, "video: send the file, or the id of a video", "invalid_value", "video")
        self._room(0, client)
        id = new_id()
        with contextlib.ExitStack() as kept, refused():
            source = None if given[0].video_id is None else self._get(client, given[0].video_id)
            if source is None:
                path = kept.enter_context(self.uploads.kept(given[0].file or io.BytesIO()))
            elif source.status != COMPLETED:
                raise Refused(400, f"{source.id} is {source.status}: it has no frames yet", param="video")
            else:
                path = self.files.media(source.id)
            name, settings = self.catalog.window(request, source)
            pipe = self.catalog.pipes[name]
            try:
                have = self.uploads.frames(path, self.files.source(id), pipe.size(settings), self.options.limits.longer)
                prompt, wanted = self.catalog.longer(request, pipe, settings, have)
                shown = {"size": "{1}x{0}".format(*pipe.size(settings)), "seconds": f"{wanted.frames / settings.fps:g}"}
                shown |= {} if source is None else {k: v for k, v in source.shown.items() if k == "lora"}
                shown["longer"] = {"frames": wanted.frames, "seams": wanted.seams, "of": source and source.id}
                video = self._new(client, name, prompt, asdict(wanted.settings), shown, 0)
                row = _with(video, id=id, together=f"{video.together} {id}", idempotency_key=idempotency_key)
                return self._queue(client, [_with(row, request_hash=stamp)])
            except BaseException:
                if self.store.get(id) is None:
                    self.files.remove(id)
                raise

    def _new(self, client: Client, model: str, prompt: str, settings: Json, shown: Json, priority: int) -> Video:
        kind = together(variant(model, shown.get("lora")), SampleSettings(**settings))
        common: dict[str, Any] = {"seq": 0, "id": new_id(), "owner": client.name, "status": QUEUED}
        common |= {"references_count": 0, "remixed_from": None, "created": time.time()}
        return Video(
            **common, model=model, prompt=prompt, settings=settings, shown=shown, priority=priority, together=kind
        )

    def _put(self, client: Client, videos: list[Video], paths: Sequence[Path], settings: SampleSettings) -> VideoAnswer:
        first = videos[0]
        if paths and settings.mode != T2I2V:
            pipe = self.catalog.pipes[first.model]
            how = {"size": pipe.size(settings), "causal": pipe.causal}
            how["fps"] = settings.fps if settings.match_fps else None
            outs = self.files.references(first.id, len(paths))
            try:
                self.uploads.take(paths, outs, settings.condition, how)
            except BaseException:
                self.files.remove(first.id)
                raise
        for video in videos[1:]:
            if paths:
                shutil.copytree(self.files.folder(first.id), self.files.folder(video.id))
        return self._queue(client, videos)

    def _queue(self, client: Client, videos: list[Video]) -> VideoAnswer:
        limits, rows = self.options.limits, []
        most = min(limits.queued_per_key, limits.queued_per_key if client.queued is None else client.queued)
        try:
            for video in videos:
                row, new = self.store.add(video, limits.queued, most)
                if not new:  # two requests of one key at once
                    self.files.remove(video.id)
                    if row.request_hash != video.request_hash:
                        raise Refused(409, "the idempotency key was used for another request: take a new one")
                rows.append(row)
        except OverflowError as full:
            self.files.remove(video.id)
            if not rows:
                whose = "the queue is full" if str(full) == "server" else f"{most} videos of this key wait already"
                raise Refused(429, f"{whose}: wait until one is finished", "queue_full") from full
        except Exception:
            self.files.remove(video.id)
            raise
        self.dispatcher.nudge()
        self.board.tell()
        return self.answer(rows[0], tuple(row.id for row in rows[1:]))

    def _again(self, client: Client, idempotency_key: str, stamp: str) -> VideoAnswer | None:
        row = self.store.of_key(client.name, idempotency_key)
        if row is not None and row.request_hash != stamp:
            raise Refused(409, "the idempotency key was used for another request: take a new one", "idempotency")
        return None if row is None else self.answer(row)

    def _room(self, priority: int, client: Client) -> None:
        if priority > client.priority:
            raise Refused(403, f"priority is {priority}, {client.priority} at most with this key", param="priority")
        if self.files.free() < self.options.limits.free_mb << 20:
            raise Refused(507, "the disk of the server is nearly full: delete videos, or wait", "disk_full")

    def _file(self, client: Client, given: Given) -> contextlib.AbstractContextManager[Path]:
        if given.file is not None:
            return self.uploads.kept(given.file)
        video = self._get(client, given.video_id or "")
        last = self.files.folder(video.id) / LAST
        if video.status != COMPLETED or not last.is_file():
            raise Refused(400, f"{video.id} is {video.status}: it has no last frame yet", param="input_reference")
        return self.uploads.kept(io.BytesIO(last.read_bytes()))

    def _get(self, client: Client, id: str) -> Video:
        row = self.store.get(id, client.name) if ID.fullmatch(id) else None
        if row is None:
            raise Refused(404, "there is no such video", "not_found")
        return row

    def get(self, client: Client, id: str) -> VideoAnswer:
        """The video of this id. `Refused` where the client has none."""
        return self.answer(self._get(client, id))

    def answer(self, row: Video, siblings: tuple[str, ...] = ()) -> VideoAnswer:
        """A video as its answer. siblings: ids of what was asked for together with it."""
        place = self.store.places().get(row.id) if row.status == QUEUED else None
        return answers.video(row, self.board.get(row.id), place, self.options.keep.days, siblings)

    def page(self, client: Client, after: str | None, limit: int, newest_first: bool, search: str = "") -> VideoList:
        """A page of a client's videos.

        after: the id of the last one of the page before. limit: how many. newest_first: or the oldest. search: a part
        of their prompts.
        """
        start = self._get(client, after).seq if after is not None else None
        with refused():
            search = told(search, "search", SEARCH)
        rows = self.store.page(client.name, start, limit + 1, newest_first, search)
        shown = rows[:limit]
        places = self.store.places() if any(row.status == QUEUED for row in shown) else {}
        days = self.options.keep.days
        data = [answers.video(row, self.board.get(row.id), places.get(row.id), days) for row in shown]
        ids = [row.id for row in shown] or [None]
        return VideoList(data=data, first_id=ids[0], last_id=ids[-1], has_more=len(rows) > limit)

    def media(self, client: Client, id: str, name: str | None) -> tuple[Path, str]:
        """(file, name for whoever downloads it) of a finished video.

        client: who asks. id: of the video. name: of the file; None: the video itself. `Refused` where it is not there.
        """
        row = self._get(client, id)
        if row.status != COMPLETED:
            raise Refused(409, f"the video is {row.status}: there is nothing to download", "not_ready")
        path = self.files.media(id) if name is None else self.files.folder(id) / name
        if not path.is_file():
            raise Refused(404, "the file is gone", "not_found")
        return path, f"{id}{path.suffix}"

    def cancel(self, client: Client, id: str) -> VideoAnswer:
        """Stop a video at its next step. client: who asks. id: of the video. One that is over stays as it is."""
        row = self._get(client, id)
        if row.status in (QUEUED, RUNNING):
            self.store.cancel(id)
            self.dispatcher.cancel(id)
            self.board.tell()
        return self.get(client, id)

    def delete(self, client: Client, id: str) -> None:
        """Forget a video and remove its files; one that runs is stopped. client: who asks. id: of the video."""
        self.cancel(client, id)
        self.store.delete(id)
        self.files.remove(id)
        self.board.tell()

    def settings_of(self, file: BinaryIO) -> Json:
        """The settings that a file of ours carries. `Refused` for any other."""
        with refused(), self.uploads.kept(file) as path:
            settings = self.uploads.look(path).settings
        if settings is None:
            raise Refused(400, "the file carries no settings of osjax: drop one that was made here")
        return settings


@contextlib.contextmanager
def refused():
    """A block whose errors of the user's are answers of 400."""
    try:
        yield
    except UserError as problem:
        raise Refused(400, str(problem), "invalid_value") from problem
    except ValueError as problem:
        raise Refused(400, str(problem), "invalid_value") from problem


def _with(video: Video, **changes: object) -> Video:
    return Video(**{**vars(video), **changes})


def _stamp(request: CreateRequest | ExtendRequest, given: Sequence[Given]) -> str:
    """What two requests have in common that ask for the same."""
    words = json.dumps(request.model_dump(), sort_keys=True).encode("utf-8", "surrogatepass")
    whole = hashlib.sha256(hashlib.sha256(words).digest())
    for one in given:
        if one.file is not None:
            one.file.seek(0)
            whole.update(hashlib.file_digest(one.file, "sha256").digest())
        else:
            whole.update(hashlib.sha256((one.video_id or "").encode()).digest())
    return whole.hexdigest()
