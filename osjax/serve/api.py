"""The routes, each a few lines: read the request, ask the service, answer."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse

from osjax.serve import bodies, events
from osjax.serve.answers import Refused
from osjax.serve.auth import Client
from osjax.serve.files import LAST, MEDIA_TYPES, SPRITESHEET, THUMBNAIL
from osjax.serve.metrics import Metrics
from osjax.serve.schema import (
    CreateRequest,
    Deleted,
    ErrorAnswer,
    ExtendRequest,
    ModelAnswer,
    ModelList,
    Refined,
    RefineRequest,
    RemixRequest,
    VideoAnswer,
    VideoList,
)
from osjax.serve.service import Service

VARIANTS = {"video": None, "thumbnail": THUMBNAIL, "spritesheet": SPRITESHEET, "last_frame": LAST}
Id = Annotated[str, Path(max_length=100)]
Variant = Literal["video", "thumbnail", "spritesheet", "last_frame"]
NOT_MADE = {status: {"model": ErrorAnswer} for status in (400, 401, 403, 404, 408, 409, 413, 415, 429, 507)}
NEWEST = 60  # videos that the stream of all tells of


def _body(kind: type, files: tuple[str, ...] = ()) -> dict[str, Any]:
    """What OpenAPI says of a body that is JSON or a form."""
    schema = kind.model_json_schema()
    form = {**schema, "properties": dict(schema["properties"])}
    for name in files:
        form["properties"][name] = {"type": "string", "format": "binary"}
        kinds = ("id",) if name == bodies.VIDEO else ("image_url", "video_id")
        one = {"type": "object", "properties": {kind: {"type": "string"} for kind in kinds}}
        schema = {**schema, "properties": {**schema["properties"], name: one}}
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def routes(service: Service, metrics: Metrics, created: int) -> APIRouter:
    """All routes of a server. service, metrics: its own. created: when it began, in seconds since 1970."""
    router = APIRouter()
    videos = APIRouter(prefix="/v1/videos", tags=["videos"], responses=NOT_MADE)
    _videos(videos, service)
    _progress(videos, service)
    router.include_router(videos)

    @router.get("/v1/models", tags=["models"])
    def models() -> ModelList:
        data = [_model(service, name, created) for name in service.catalog.pipes]
        return ModelList(data=data, refines=service.options.refine.url is not None)

    @router.get("/v1/models/{name}", tags=["models"], responses={404: {"model": ErrorAnswer}})
    def model(name: Annotated[str, Path(max_length=200)]) -> ModelAnswer:
        if name not in service.catalog.pipes:
            raise Refused(404, "there is no such model", "not_found")
        return _model(service, name, created)

    @router.get("/health", tags=["server"])
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready", tags=["server"], responses={503: {"model": ErrorAnswer}})
    async def ready() -> dict[str, str]:
        if not service.dispatcher.ready:
            raise Refused(503, "models are being loaded and compiled", "not_ready")
        return {"status": "ready"}

    @router.get("/metrics", tags=["server"], response_class=Response)
    def numbers() -> Response:
        text = metrics.text(service.store.counts, service.board.followers)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= 255:
        raise Refused(400, "an idempotency key has 1 to 255 characters", param="idempotency-key")
    return key


def _client(request: Request) -> Client:
    return request.state.client


def _model(service: Service, name: str, created: int) -> ModelAnswer:
    pipe = service.catalog.pipes[name]
    told = {"defaults": pipe.describe(pipe.settings), "modes": service.catalog.modes(name)}
    return ModelAnswer(id=name, created=created, loras=service.catalog.loras, **told)


def _videos(router: APIRouter, service: Service) -> None:
    @router.post("", openapi_extra=_body(CreateRequest, bodies.FILES))
    async def create(request: Request) -> VideoAnswer:
        asked, given = await bodies.read(request, CreateRequest)
        return await run_in_threadpool(service.create, _client(request), asked, given, _key(request))

    @router.get("")
    def page(
        request: Request,
        after: Annotated[str | None, Query(max_length=100)] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        search: Annotated[str, Query(max_length=200)] = "",
    ) -> VideoList:
        return service.page(_client(request), after, limit, order == "desc", search)

    @router.post("/settings", openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}}})
    async def settings(request: Request) -> dict[str, Any]:
        """The settings that a video or picture of this server carries, to make it again."""
        return await run_in_threadpool(service.settings_of, await bodies.spooled(request))

    @router.post("/refine", responses={502: {"model": ErrorAnswer}})
    def refine(asked: RefineRequest) -> Refined:
        """A fuller prompt and a motion score, to look at and to change before they are used."""
        return service.refine(asked)

    @router.post("/extensions", openapi_extra=_body(ExtendRequest, (bodies.VIDEO,)))
    async def extend(request: Request) -> VideoAnswer:
        """A video with seconds added to it, in windows that overlap."""
        asked, given = await bodies.read(request, ExtendRequest, (bodies.VIDEO,))
        return await run_in_threadpool(service.extend, _client(request), asked, given, _key(request))

    @router.post("/edits")
    def edit() -> VideoAnswer:
        """Videos are not edited here; this says what there is instead."""
        raise Refused(400, "videos are not edited here: POST /v1/videos/ID/remix makes one anew", "not_supported")

    @router.post("/characters")
    def character() -> VideoAnswer:
        """There are no characters here; this says what there is instead."""
        raise Refused(400, "there are no characters here: name them in the prompt, or give a frame", "not_supported")

    # In the loop, not in a thread: it reads a row, and must not wait behind uploads for one that is free.
    @router.get("/{id}")
    async def get(request: Request, id: Id) -> VideoAnswer:
        return service.get(_client(request), id)

    @router.delete("/{id}")
    def delete(request: Request, id: Id) -> Deleted:
        service.delete(_client(request), id)
        return Deleted(id=id)

    @router.post("/{id}/cancel")
    def cancel(request: Request, id: Id) -> VideoAnswer:
        """Stop at the next step; the video fails with the code `cancelled`."""
        return service.cancel(_client(request), id)

    @router.post("/{id}/remix", openapi_extra=_body(RemixRequest))
    async def remix(request: Request, id: Id) -> VideoAnswer:
        asked, given = await bodies.read(request, RemixRequest)
        if given:
            raise Refused(400, "a remix keeps its references: leave them out", param=bodies.FILES[0])
        return await run_in_threadpool(service.remix, _client(request), id, asked.prompt)

    @router.get("/{id}/content", response_class=FileResponse)
    def content(request: Request, id: Id, variant: Variant = "video") -> FileResponse:
        """The video, or a picture of it. Answers ranges."""
        path, name = service.media(_client(request), id, VARIANTS[variant])
        private = {"Cache-Control": "private, max-age=3600"}
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], filename=name, headers=private)


def _progress(router: APIRouter, service: Service) -> None:
    def room() -> None:
        if service.board.followers >= service.options.limits.streams:
            raise Refused(429, "too many streams of events are open: ask again later", "too_many_streams")

    # Ahead of the one with an id, which would take `all` for one.
    @router.get("/all/events", response_class=StreamingResponse)
    async def follow_all(request: Request) -> StreamingResponse:
        """Server-sent events of the newest videos of this client, until the server ends."""
        client = _client(request)
        room()

        async def answers() -> list[VideoAnswer]:
            return (await run_in_threadpool(service.page, client, None, NEWEST, True)).data

        return _stream(events.of_all(service.board, answers))

    @router.get("/{id}/events", response_class=StreamingResponse)
    async def follow(request: Request, id: Id) -> StreamingResponse:
        """Server-sent events of one video, until it is over."""
        client = _client(request)
        service.get(client, id)
        room()

        def answer() -> VideoAnswer | None:
            try:
                return service.get(client, id)
            except Refused:
                return None

        return _stream(events.of_video(service.board, id, answer))


def _stream(chunks) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)
