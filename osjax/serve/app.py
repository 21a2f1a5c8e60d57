"""A server put together: its store, its threads and its routes; and how it runs until it is told to end."""

import asyncio
import contextlib
import logging
import multiprocessing.util
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import osjax
from osjax.errors import UserError
from osjax.parts.sampling import SamplingKeys
from osjax.serve import answers, api, guard, pages
from osjax.serve.answers import Refused
from osjax.serve.auth import Keys
from osjax.serve.catalog import Catalog
from osjax.serve.dispatch import Dispatcher
from osjax.serve.files import Files
from osjax.serve.live import Board
from osjax.serve.metrics import Metrics
from osjax.serve.options import ServerOptions
from osjax.serve.retention import Retention
from osjax.serve.service import Service
from osjax.serve.store import COMPLETED, Store, Video, variant
from osjax.serve.uploads import Uploads
from osjax.types import Json

log = logging.getLogger(__name__)
Adapters = tuple[str, float]  # path, strength
VARIABLES = ("JAX_", "XLA_", "CUDA_", "TPU_", "LIBTPU_")  # of the environment, that count for devices
GRACE_S = 5  # for answers under way, once the server is told to end


def run(options: ServerOptions, models: Mapping[str, SamplingKeys], loras: Mapping[str, Adapters]) -> None:
    """Serve until a signal ends it.

    options: of the server. models: by name, the first one is the default. loras: adapters by name. UserError for what
    cannot be served.
    """
    _log_lines()
    folder, keys = Path(options.folder), Keys(Path(options.folder))
    catalog, warm = check(options, models, loras)
    store, files, board, metrics = Store(folder), Files(folder), Board(), Metrics()
    _recover(store, files)

    def describe(video: Video) -> Json:
        return catalog.describe(video.model, video.prompt, catalog.settings(video.settings)) | {
            "osjax": osjax.__version__,
            **{key: value for key, value in video.shown.items() if key in ("longer", "lora")},
        }

    environment = {k: v for k, v in os.environ.items() if k.startswith(VARIABLES)}
    process = (variants(models, loras), options.loaded, environment)
    dispatcher = Dispatcher(store, files, board, metrics, process, describe, warm)
    service = Service(options, catalog, store, files, Uploads(folder, options.limits), board, dispatcher)
    multiprocessing.util.get_temp_dir()  # stays where it is: sockets want short paths
    tempfile.tempdir = str(service.uploads.folder)  # of forms: /tmp may be memory
    retention = Retention(store, files, options.keep)
    guarded = guard.Guard(application(service, metrics), options, keys, metrics)
    with _listening(options) as listener:
        guarded.port = listener.getsockname()[1]
        for thread in (dispatcher, retention, threading.Thread(target=service.uploads.warm, daemon=True)):
            thread.start()
        shown = f"[{options.host}]" if ":" in options.host else options.host
        print(f"osjax: serving {', '.join(models)} at http://{shown}:{guarded.port}", flush=True)
        settings = uvicorn.Config(
            guarded,
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=1000,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=GRACE_S,
            h11_max_incomplete_event_size=32768,
            http="h11",
            ws="none",
        )
        try:
            _Server(settings, board).run([listener])
        finally:
            dispatcher.stop()
            retention.stop()
            service.uploads.close()
            store.close()


def check(
    options: ServerOptions, models: Mapping[str, SamplingKeys], loras: Iterable[str] = ()
) -> tuple[Catalog, list[tuple[str, Json]]]:
    """What is served, and (model, settings) of what is compiled ahead; no weight is read.

    options: of the server. models: by name. loras: names of adapters. UserError for what cannot be served.
    """
    catalog = Catalog(models, options.limits, loras)
    return catalog, [(name, settings) for name in models for settings in _warm(catalog, name, options.warm)]


def variants(models: Mapping[str, SamplingKeys], loras: Mapping[str, Adapters]) -> dict[str, SamplingKeys]:
    """The models, and each with each of some adapters. models, loras: by name."""
    made = dict(models)
    for name, keys in models.items():
        for lora, row in loras.items():
            adapted = replace(keys.model, adapters=(*keys.model.adapters, row))
            made[variant(name, lora)] = replace(keys, model=adapted)
    return made


class _Server(uvicorn.Server):
    """Streams of events end first: they would keep the others waiting."""

    def __init__(self, config: uvicorn.Config, board: Board):
        super().__init__(config)
        self._board = board

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A block in which signals end the server in order; uvicorn's own sends them again, which cuts that short."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._board.close()
        await super().shutdown(sockets)


def application(service: Service, metrics: Metrics) -> FastAPI:
    """The routes with their errors. service, metrics: of this server."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.board.attach(asyncio.get_running_loop())
        yield

    app = FastAPI(
        title="osjax",
        version=osjax.__version__,
        description="OpenAI's videos API, served by Open-Sora in JAX.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.include_router(api.routes(service, metrics, int(time.time())))
    app.include_router(pages.routes(app))

    @app.exception_handler(Refused)
    async def refused(_: Request, problem: Refused) -> JSONResponse:
        return answers.error(problem.status, problem.message, problem.code, problem.param)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        name = str(first["loc"][-1])[:100]
        return answers.error(400, f"{name}: {first['msg']}", "invalid_value", name)

    @app.exception_handler(HTTPException)
    async def http(_: Request, problem: HTTPException) -> JSONResponse:
        return answers.error(problem.status_code, str(problem.detail))

    @app.exception_handler(404)
    async def lost(_: Request, problem: Exception) -> JSONResponse:
        return answers.error(404, "there is no such page: /docs has those that there are", "not_found")

    @app.exception_handler(405)
    async def method(_: Request, problem: HTTPException) -> JSONResponse:
        answer = answers.error(405, "this page takes another method: /docs says which", "method_not_allowed")
        answer.headers.update(problem.headers or {})
        return answer

    @app.exception_handler(guard.TooLarge)
    async def large(_: Request, problem: Exception) -> JSONResponse:
        return answers.error(413, f"the body is too large: {problem}", "too_large")

    @app.exception_handler(guard.TooSlow)
    async def slow(_: Request, problem: Exception) -> JSONResponse:
        return answers.error(408, f"the body came too slowly: {problem}", "too_slow")

    @app.exception_handler(Exception)
    async def failed(_: Request, problem: Exception) -> Response:
        if answers.is_full(problem):
            return answers.error(507, "no space is left on the disk of the server", "disk_full")
        return answers.error(500, "the server failed: its log says why", "server_error")

    return app


def _warm(catalog: Catalog, name: str, resolutions: tuple[str, ...]) -> list[Json]:
    """Settings of what is compiled ahead for a model: its own size, and each of some resolutions."""
    pipe = catalog.pipes[name]
    sized = [pipe.settings, *(pipe.settings.changed(resolution=resolution) for resolution in resolutions)]
    for settings in sized:
        pipe.check(settings)
    return [vars(replace(settings, mode="t2v")) for settings in sized]


def _recover(store: Store, files: Files) -> None:
    """Bring a store to where a server that ended, however it did, left off."""
    again = store.recover()
    swept = files.sweep(store.ids())
    for video in store.over():
        if video.status == COMPLETED and not files.media(video.id).is_file():
            log.error("the file of a finished video is gone", extra={"told": {"video": video.id}})
    log.info("recovered", extra={"told": {"again": again, "swept": swept, "waiting": len(store.places())}})


@contextlib.contextmanager
def _listening(options: ServerOptions):
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        where = f"{options.host}:{options.port}"
        raise UserError(
            f"{where} cannot be listened at ({error.strerror or error}): give another --port", status=2
        ) from error
    with listener:
        yield listener


def _log_lines() -> None:
    """Every record of this process becomes a line of JSON on the standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(guard.Lines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("osjax").setLevel(logging.INFO)
