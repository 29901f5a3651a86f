"""Routes of batch jobs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from starlette.responses import Response, StreamingResponse

from mai.report.table_csv import Csv
from mai.serve import archive, openapi
from mai.serve.job_store import Job, Store
from mai.serve.jobs import RETRY_S, Jobs
from mai.serve.refusal import Refusal
from mai.serve.room import told_size
from mai.serve.shares import Share, client_of
from mai.serve.uploads import Bounds, receive
from mai.types import Record

if TYPE_CHECKING:
    from mai.serve.app import Service

MAX_OPEN = 100
"""Jobs that are not over, at most."""

JOB_UPLOAD_S = 3600.0
"""Seconds that a job's body may take to arrive, at least."""

BEAT_S = 10.0
"""Seconds after which a stream says that it is alive, although nothing changed."""

JOB: dict[str, Any] = {
    "type": "object",
    "required": [
        "id",
        "state",
        "created",
        "finished",
        "deleted_at",
        "n_files",
        "n_done",
        "n_failed",
        "labels",
    ],
    "properties": {
        "id": {"type": "string"},
        "state": {"type": "string", "enum": ["queued", "running", "finished", "cancelled", "failed"]},
        "created": {"type": "string", "format": "date-time"},
        "finished": {"type": ["string", "null"], "format": "date-time"},
        "deleted_at": {"type": ["string", "null"], "format": "date-time"},
        "n_files": {"type": ["integer", "null"], "description": "null while an archive is read."},
        "n_done": {"type": "integer"},
        "n_failed": {"type": "integer", "description": "Pictures that could not be judged."},
        "labels": {"type": "object", "additionalProperties": {"type": "integer"}},
        "message": {
            "type": ["string", "null"],
            "description": "Why it failed, or why its archive was not read to the end.",
        },
    },
}
ANSWER = {"description": "The job as it stands.", "content": {"application/json": {"schema": JOB}}}


def routes(app: FastAPI, service: Service, data: Path) -> None:
    """Add them, and the jobs to the application.

    Raises:
        UsageError: the folder cannot be used.
    """
    told = service.settings
    jobs = Jobs(
        Store(data),
        service.desk,
        service.metrics,
        told.n_workers,
        told.keep_s,
        archive.Bounds(
            told.scan.limits.max_bytes,
            told.max_job_files,
            told.max_archive_members,
            told.archive_s,
            told.memory_mb,
        ),
    )
    app.state.jobs = jobs
    share = Share(MAX_OPEN, told.client_share, "jobs", RETRY_S)
    pace = replace(told.pace, timeout_s=max(told.pace.timeout_s, JOB_UPLOAD_S))
    bounds = Bounds(told.max_job_bytes, told.max_job_bytes, told.max_job_files, pace)

    def owner(request: Request) -> str:
        caller = str(request.scope["mai_caller"])
        return caller if caller.startswith("key:") else ""

    def job_of(request: Request, name: str) -> Job:
        job = jobs.store.get(name)
        if job is None or job.owner != owner(request):
            raise Refusal("not_found", "There is no such job. A finished job is deleted after a time.")
        return job

    @app.post(
        "/v1/jobs",
        status_code=202,
        tags=["jobs"],
        operation_id="start_job",
        summary="Start a batch job",
        responses={202: ANSWER, **openapi.errors(401, 403, 408, 413, 422, 429, 507)},
        openapi_extra=openapi.files_body("Many files in a form, or one zip or tar archive."),
    )
    async def start_job(
        request: Request,
        name: Annotated[str, Query(description="What to call a file that is sent as plain bytes.")] = "",
    ) -> dict[str, Any]:
        """Take many pictures and look at them when there is room. The job's id is what it is asked for by."""
        jobs.check_places(MAX_OPEN)
        client, n_bytes = client_of(request), told_size(request, bounds.max_bytes)
        with contextlib.ExitStack() as held:
            held.enter_context(share.hold(client))
            job, folder = jobs.store.new_folder()
            try:
                # The upload, and one archive's worth beside it.
                room = held.enter_context(service.room.hold(folder, n_bytes, told.max_job_bytes, client))
                uploads = await receive(request, folder, bounds, room)
                room.settle()
                jobs.check_places(
                    MAX_OPEN
                )  # others may have been quicker; who is slow takes no place from them
                service.rate.take(request.scope["mai_caller"], 1)
                kind = archive.kind_of(uploads[0].file, uploads[0].name) if len(uploads) == 1 else None
                jobs.store.add(job, owner(request), [upload.name for upload in uploads], kind)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            jobs.added(job, held.pop_all())
        return job_of(request, job).to_dict(jobs.keep_s)

    @app.get(
        "/v1/jobs/{job}",
        tags=["jobs"],
        operation_id="job",
        responses={200: ANSWER, **openapi.errors(401, 404)},
    )
    async def one(request: Request, job: str) -> dict[str, Any]:
        """How far a job is."""
        return job_of(request, job).to_dict(jobs.keep_s)

    @app.get(
        "/v1/jobs/{job}/events",
        tags=["jobs"],
        operation_id="job_events",
        response_class=Response,
        responses={
            200: {
                "description": "Server-sent events `progress`, then `end`.",
                "content": {"text/event-stream": {}},
            },
            **openapi.errors(401, 404),
        },
    )
    async def events(request: Request, job: str) -> Response:
        """The same as it changes, as server-sent events; the last is `end`."""
        job_of(request, job)
        stream = _events(jobs, job, service.stopping)
        return StreamingResponse(
            stream,
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
        )

    @app.get(
        "/v1/jobs/{job}/results",
        tags=["jobs"],
        operation_id="job_results",
        response_class=Response,
        responses={
            200: {
                "description": "Rows so far, in the order of the files.",
                "content": {"application/x-ndjson": {"schema": openapi.ref("Record")}, "text/csv": {}},
            },
            **openapi.errors(401, 404),
        },
    )
    async def results(
        request: Request, job: str, form: Annotated[Literal["jsonl", "csv"], Query(alias="format")] = "jsonl"
    ) -> Response:
        """The rows: those of `mai scan --jsonl` or `--csv`. Of a job that is not over, those that are there."""
        found = job_of(request, job)
        rows = jobs.store.rows(found.id)
        headers = {"Content-Disposition": f'attachment; filename="mai-{found.id[:8]}.{form}"'}
        if form == "csv":
            return StreamingResponse(_csv(rows), headers=headers, media_type="text/csv; charset=utf-8")
        return StreamingResponse(
            (f"{row}\n" for row in rows), headers=headers, media_type="application/x-ndjson; charset=utf-8"
        )

    @app.delete(
        "/v1/jobs/{job}",
        status_code=204,
        tags=["jobs"],
        operation_id="delete_job",
        response_class=Response,
        responses=openapi.errors(401, 404),
    )
    async def delete(request: Request, job: str) -> Response:
        """Stop a job if it runs, and delete its pictures and rows now."""
        jobs.cancel(job_of(request, job))
        return Response(status_code=204)


async def _events(jobs: Jobs, job: str, stopping: asyncio.Event) -> AsyncIterator[str]:
    before = None
    while not stopping.is_set():
        found = jobs.store.get(job)
        if found is None:
            yield "event: end\ndata: {}\n\n"
            return
        now = json.dumps(found.to_dict(jobs.keep_s))
        if found.is_over:
            yield f"event: end\ndata: {now}\n\n"
            return
        yield ": alive\n\n" if now == before else f"event: progress\ndata: {now}\n\n"
        before = now
        stop = asyncio.ensure_future(stopping.wait())
        news = asyncio.ensure_future(jobs.changes(job, BEAT_S))
        _, left = await asyncio.wait({stop, news}, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.sleep(0.1)  # ten events a second are enough


def _csv(rows: Iterator[str]) -> Iterator[str]:
    stream = StringIO(newline="")
    writer = Csv(stream)
    for row in rows:
        writer.write(Record.from_dict(json.loads(row)))
        yield _taken(stream)
    yield _taken(stream)


def _taken(stream: StringIO) -> str:
    text = stream.getvalue()
    stream.seek(0)
    stream.truncate()
    return text
