"""mai serve: the service and the page: judge pictures over HTTP.

Exit codes: 0 stopped by a signal, 1 it could not start or work, 2 wrong use.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

MAX_TIME = 1_000_000
"""Seconds or hours: what is beyond does not fit into what the system waits for."""


class _Seconds(click.FloatRange):
    """A time that the system's clocks take; click's own bounds let `inf` and `nan` pass."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not found <= MAX_TIME:
            self.fail(f"{found:g} is no time that a clock takes. Give at most {MAX_TIME:,}.", param, ctx)
        return found


@click.command(short_help="A service and a page: judge pictures over HTTP.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one."
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Hashed keys; requests then need one of them.",
)
@click.option("--new-key", metavar="NAME", help="Make a key, add it to --keys FILE, print it once, and end.")
@click.option(
    "--no-auth", is_flag=True, help="With --host beyond this machine: everybody who reaches it may use it."
)
@click.option(
    "--rate",
    type=click.IntRange(0),
    metavar="N",
    help="Images a minute of one key, or of one address without keys; 0: no limit. Default: 600 with --keys.",
)
@click.option(
    "--workers", type=click.IntRange(1), metavar="N", help="Processes that look. Default: one a CPU."
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Images taken at a time; beyond: 429.",
)
@click.option(
    "--client-share",
    type=float,
    metavar="SHARE",
    help="What one key, or one address without keys, may have of the room for uploads, of waiting jobs and of "
    "--queue, up to 1: all. Default: 0.5; 1 on loopback without --keys and --proxy.",
)
@click.option(
    "--timeout",
    type=_Seconds(),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds that one image may take; beyond: 504, and its worker is ended.",
)
@click.option(
    "--upload-idle",
    type=_Seconds(),
    default=20.0,
    show_default=True,
    metavar="S",
    help="Seconds over which an upload must keep up --upload-rate; slower: 408, and its connection is closed.",
)
@click.option(
    "--upload-rate",
    type=click.IntRange(0),
    default=1024,
    show_default=True,
    metavar="BYTES",
    help="Bytes a second that an upload must bring; 0: one byte in --upload-idle.",
)
@click.option(
    "--max-files",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Images of one request; beyond: 413.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    metavar="N",
    help="Largest file, in bytes; beyond: 413. Default: 64 MiB.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    metavar="N",
    help="Largest picture; beyond: 413. Default: 120 million.",
)
@click.option(
    "--memory",
    type=click.IntRange(0),
    default=3072,
    show_default=True,
    metavar="MB",
    help="Data memory of one worker (Linux); 0: no limit.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of batch jobs; without it there are none, and nothing is kept.",
)
@click.option(
    "--keep",
    type=_Seconds(),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Time after which a finished job and its pictures are deleted.",
)
@click.option(
    "--max-job-files", type=click.IntRange(1), default=10_000, show_default=True, help="Images of one job."
)
@click.option(
    "--max-archive-members",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    metavar="N",
    help="Members of a job's archive, of any kind; the rest are left out.",
)
@click.option(
    "--archive-time",
    type=_Seconds(),
    default=300.0,
    show_default=True,
    metavar="S",
    help="Seconds that reading a job's archive may take in all; then its reader is ended, and the rest left out.",
)
@click.option("--allow-urls", is_flag=True, help="Fetch pictures from public addresses that clients name.")
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="A name under which the service is reached; may be repeated.",
)
@click.option(
    "--proxy", metavar="ADDRESS", help="Believe X-Forwarded-For of the reverse proxy at this address."
)
@click.option(
    "--detectors", metavar="A,B", help="Detectors to ask. Default: c2pa, metadata, watermark, pixel."
)
@click.option(
    "--fpr", type=float, metavar="RATE", help="Share of authentic images that may be flagged, e.g. 0.01."
)
@click.option(
    "--threshold", type=float, metavar="T", help="Score from which an image counts as AI-generated."
)
@click.option("--prior", type=float, metavar="P", help="Share of AI-generated images at the source.")
@click.option("--weights", metavar="DIR", help="Weights in place of the shipped ones: a folder or a name.")
@click.option(
    "--trust", type=click.Path(path_type=Path), metavar="FILE", help="PEM file of C2PA trust anchors."
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--verbose", is_flag=True, help="A line a request on stderr.")
def command(
    *,
    host: str,
    port: int,
    keys: Path | None,
    new_key: str | None,
    no_auth: bool,
    rate: int | None,
    workers: int | None,
    queue: int,
    client_share: float | None,
    timeout: float,
    upload_idle: float,
    upload_rate: int,
    max_files: int,
    max_bytes: int | None,
    max_pixels: int | None,
    memory: int,
    data: Path | None,
    keep: float,
    max_job_files: int,
    max_archive_members: int,
    archive_time: float,
    allow_urls: bool,
    allow_host: tuple[str, ...],
    proxy: str | None,
    detectors: str | None,
    fpr: float | None,
    threshold: float | None,
    prior: float | None,
    weights: str | None,
    trust: Path | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Judge pictures over HTTP: a page for people at /, an interface for programs described at /docs.

    It listens on this machine only, fetches nothing, and keeps nothing, unless told otherwise.

    Exit codes: 0 stopped by a signal, 1 it could not start or work, 2 wrong use.
    """
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other.")
    if new_key is not None:
        _new_key(keys, new_key)
    from mai.errors import require

    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(package, "serve", "mai serve")
    from mai.images.decode import Limits
    from mai.machine import n_cpus
    from mai.pipeline import ScanSettings
    from mai.serve.limits import Pace
    from mai.serve.settings import ServeSettings

    usual = Limits()
    names = tuple(name.strip() for name in detectors.split(",") if name.strip()) if detectors else None
    settings = ServeSettings(
        scan=ScanSettings(
            names,
            fpr,
            threshold,
            prior,
            Limits(max_bytes or usual.max_bytes, max_pixels or usual.max_pixels),
            weights,
            trust,
        ),
        host=host,
        port=port,
        keys=keys,
        is_open=no_auth,
        rate=rate,
        n_workers=workers or n_cpus(),
        queue=queue,
        timeout_s=timeout,
        pace=Pace(idle_s=upload_idle, min_rate=upload_rate),
        max_files=max_files,
        memory_mb=memory or None,
        data=data,
        keep_s=keep * 3600,
        max_job_files=max_job_files,
        max_archive_members=max_archive_members,
        archive_s=archive_time,
        has_urls=allow_urls,
        hosts=allow_host,
        proxy=proxy,
        share=client_share,
    )
    from mai.serve.app import make_app
    from mai.serve.server import run

    sys.exit(run(make_app(settings, is_verbose=verbose), settings, is_quiet=quiet))


def _new_key(keys: Path | None, name: str) -> None:
    """Print a new key, and nothing else on standard output."""
    if keys is None:
        raise click.UsageError("--new-key needs --keys FILE, where the key's hash goes.")
    from mai.serve.keys import make

    click.echo(make(keys, name))
    click.echo(
        f"mai: This is the key of '{name}'; it is not shown again. {keys} holds its hash; delete its line to "
        "revoke it.",
        err=True,
    )
    sys.exit(0)
