"""The application: routes, and what starts and ends with it.

Guard (names, keys, headers) -> routes -> uploads in a folder of ours -> Desk -> answer, as the worker wrote it
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from mai.pipeline import Scanner
from mai.scanning.worker_process import make_scanner
from mai.serve import about, openapi, site
from mai.serve.desk import Desk
from mai.serve.guard import Guard
from mai.serve.keys import Keys
from mai.serve.limits import Parting, Rate, drain
from mai.serve.look import Answer, Ask, Want
from mai.serve.metrics import Metrics
from mai.serve.refusal import OF_STATUS, Refusal, json_response
from mai.serve.room import Claim, Room, told_size
from mai.serve.settings import ServeSettings
from mai.serve.shares import Share, client_of
from mai.serve.uploads import Bounds, Folders, Upload, receive

Form = Literal["html", "json"]

PREFIX = "mai-serve-"
"""Start of the name of the folder that holds uploads; the process id follows."""

PLACES_RETRY_S = 5.0
"""Seconds after which a client whose images wait already may send more."""


@dataclass
class Service:
    """What the routes share.

    Attributes:
        settings: of the service.
        scanner: of this process, asked for facts only; the workers have their own.
        desk: where pictures go.
        rate: images a caller.
        metrics: counters.
        folders: where uploads lie while they are looked at.
        places: of a client in the queue.
        room: on the disk, for bodies on their way.
        is_stopping: no request is taken any more.
        stopping: set when the service begins to stop, so that streams end.
    """

    settings: ServeSettings
    scanner: Scanner
    desk: Desk
    rate: Rate
    metrics: Metrics
    folders: Folders
    places: Share
    room: Room
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def bounds(self) -> Bounds:
        """Of a request that is no job."""
        told = self.settings
        return Bounds(told.max_body, told.scan.limits.max_bytes, told.max_files, told.pace)

    @asynccontextmanager
    async def uploads(self, request: Request) -> AsyncIterator[list[Upload]]:
        """The pictures of a request, and a place in the queue for each.

        Raises:
            Refusal: the queue is full, the client has its share of it, or the request is no good.
        """
        if self.stopping.is_set():
            raise Refusal("stopping", "The service is stopping. Try again in a moment.", 5.0)
        if self.desk.is_full:  # before anything is written
            raise self.desk.refusal()
        told, client = told_size(request, self.bounds.max_bytes), client_of(request)
        with self.folders.one() as folder, self.room.hold(folder, told, client=client) as room:
            found = await self._receive(request, folder, room)
            room.settle()
            self.rate.take(request.scope["mai_caller"], len(found))
            with self.desk.places(len(found)), self.places.hold(client, len(found)):
                yield found

    async def _receive(self, request: Request, folder: Path, room: Claim) -> list[Upload]:
        if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
            from mai.serve.fetch import fetch_all, urls_of

            if not self.settings.has_urls:
                raise Refusal(
                    "url_refused",
                    "This service fetches no pictures (it was started without --allow-urls). Send the picture itself.",
                )
            urls = await urls_of(request, self.bounds)
            return await fetch_all(urls, folder, self.bounds, room)
        return await receive(request, folder, self.bounds, room)

    async def look(self, request: Request, uploads: list[Upload], want: Want) -> list[Answer]:
        """Look at all; where the client goes away, what no worker has yet is let go.

        Raises:
            Refusal: no worker came in time, the service stops, the client is gone.
        """
        work = asyncio.gather(*(self.desk.ask(Ask(up.name, up.file, want)) for up in uploads))
        gone = asyncio.ensure_future(_gone(request))
        both: set[asyncio.Future[Any]] = {work, gone}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Refusal("stopping", "The client went away.")
            found = work.result()
        finally:
            for task in both:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        for answer in found:
            self.metrics.image(answer)
        return found


def make_app(settings: ServeSettings, *, is_verbose: bool = False) -> FastAPI:
    """The application, ready for uvicorn; its workers start with it and end with it.

    Raises:
        UsageError, WeightsError, MissingExtraError: as Scanner; a key file that is none.
    """
    keys = Keys(settings.keys) if settings.keys is not None else None
    rate = settings.rate if settings.rate is not None else 600 if keys is not None else None
    desk = Desk(
        settings.scan,
        settings.n_workers,
        settings.queue,
        settings.timeout_s,
        settings.wait_s,
        settings.memory_mb,
    )
    service = Service(
        settings,
        make_scanner(settings.scan),
        desk,
        Rate(rate or None),
        Metrics(desk),
        Folders(Path(tempfile.gettempdir())),
        Share(settings.queue, settings.client_share, "images", PLACES_RETRY_S, settings.max_files),
        Room(settings.client_share),
    )
    app = FastAPI(
        title="MAI",
        description=openapi.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        responses={},
        separate_input_output_schemas=False,
        # FastAPI asks OpenTelemetry at every request whether the environment wants to hear of it. Nobody does.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.service = service
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _wrong_value)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _went_away)
    app.add_exception_handler(Exception, _failed)
    _scan_routes(app, service)
    about.routes(app, service)
    site.routes(app)
    if settings.data is not None:
        from mai.serve import job_routes

        job_routes.routes(app, service, settings.data)
    described: dict[str, Any] = {}

    def describe() -> dict[str, Any]:
        if not described:
            described.update(openapi.finish(FastAPI.openapi(app), keys is not None))
        return described

    app.openapi = describe  # type: ignore[method-assign]
    app.add_middleware(
        Guard, settings=settings, keys=keys, count=service.metrics.request, is_verbose=is_verbose
    )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    _sweep(Path(tempfile.gettempdir()))
    service.folders = Folders(Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")))
    service.desk.start()
    jobs = getattr(app.state, "jobs", None)
    try:
        if jobs is not None:
            jobs.start()
        yield
    finally:
        service.stopping.set()
        if jobs is not None:
            await jobs.close()
        await service.desk.close()
        shutil.rmtree(service.folders.parent, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Delete what services left that were killed: uploads are not kept."""
    if os.name != "posix":  # elsewhere a process cannot be asked whether it lives
        return
    for folder in parent.glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            is_ours = folder.lstat().st_uid == os.getuid()
            if pid.isdigit() and is_ours and not _is_alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _scan_routes(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/scan",
        summary="Judge pictures",
        tags=["pictures"],
        operation_id="scan",
        response_class=Response,
        responses={
            200: {
                "description": "One picture: its row. Several: `records`, a row each, in the order they came in.",
                "content": {
                    "application/json": {
                        "schema": {"anyOf": [openapi.ref("Record"), openapi.ref("Records")]},
                        "example": openapi.EXAMPLE_RECORD,
                    }
                },
            },
            **openapi.image_errors(),
        },
        openapi_extra=openapi.files_body(
            "One or many files in a form, or the bytes of one picture.", urls=True
        ),
    )
    async def scan(
        request: Request,
        name: Annotated[str, Query(description="What to call a picture that is sent as plain bytes.")] = "",
    ) -> Response:
        """Judge one picture or many.

        One picture is answered with its row, and an HTTP status that says whether it could be judged: 200, or 413,
        422, 503, 504 with the row's `status` and `message`. Several are answered with 200 and a row each.
        """
        async with service.uploads(request) as uploads:
            found = await service.look(request, uploads, "record")
        if len(found) == 1:
            return _answered(found[0])
        return json_response(b'{"records": [' + b",\n".join(answer.text for answer in found) + b"]}")

    @app.post(
        "/v1/explain",
        summary="Judge a picture and show the evidence",
        tags=["pictures"],
        operation_id="explain",
        response_class=Response,
        responses={
            200: {
                "description": "The case file `mai.case/1`, or the page of `mai explain`.",
                "content": {
                    "application/json": {"schema": openapi.ref("Case")},
                    "text/html": {"schema": {"type": "string"}},
                },
            },
            **openapi.image_errors("Case"),
        },
        openapi_extra=openapi.files_body("One picture, in a form or as plain bytes.", urls=True, many=False),
    )
    async def explain(
        request: Request,
        form: Annotated[
            Form | None,
            Query(
                alias="format",
                description="`json` or `html`; by default what the Accept header asks for, else json.",
            ),
        ] = None,
        name: Annotated[str, Query(description="What to call a picture that is sent as plain bytes.")] = "",
    ) -> Response:
        """Judge one picture and give all that a report on it says: each layer's evidence, error rates, heat maps."""
        is_page = form == "html" or (form is None and _wants_html(request))
        async with service.uploads(request) as uploads:
            if len(uploads) > 1:
                raise Refusal("too_many_files", f"One picture is explained at a time, not {len(uploads)}.")
            (found,) = await service.look(request, uploads, "report" if is_page else "case")
        return _answered(found)


def _answered(found: Answer) -> Response:
    """An answer about one picture."""
    status = 503 if found.has_died else OF_STATUS[found.status]
    if found.kind == "report":
        page = found.text.decode("utf-8")
        return Response(page, status, {"Content-Security-Policy": site.policy_of(page)}, "text/html")
    return json_response(found.text, status)


def _wants_html(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "text/html" in accept and "application/json" not in accept


async def _gone(request: Request) -> None:
    """Return when the client has gone away; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    answer = error.response()
    if error.code == "upload_too_slow":  # who stopped sending is not waited for before the answer
        return Parting(answer.body, answer.status_code, dict(answer.headers))
    await drain(request)
    return answer


async def _went_away(request: Request, error: Exception) -> Response:
    """Nobody reads this; the status is nginx's, for the counters."""
    return Response(status_code=499)


async def _wrong_value(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "request"
    await drain(request)
    return Refusal("wrong_value", f"The value of '{where}' is not allowed: {first['msg']}.").response()


async def _http(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405 in our words."""
    assert isinstance(error, HTTPException)
    await drain(request)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        answer = Refusal(
            "wrong_method", f"{request.method} is not for this path. It takes: {allowed}."
        ).response()
        answer.headers["Allow"] = allowed
        return answer
    if error.status_code == 404:
        return Refusal("not_found", "There is nothing at this path. /docs lists what there is.").response()
    return Refusal("bad_request", str(error.detail)).response()


async def _failed(request: Request, error: Exception) -> Response:
    """A mistake of ours; Starlette writes its trace to the log."""
    return Refusal("failed", "The service made a mistake. Its log says more.").response()
