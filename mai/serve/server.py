"""uvicorn around the application: a stop finishes what was taken, streams end at once, workers go last."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mai.errors import MaiError
from mai.serve.app import Service
from mai.serve.connections import Impatient
from mai.serve.settings import ServeSettings

GRACE_S = 30.0
"""Seconds that requests have to end when the service is told to stop, beyond the time that one image may take."""

IDLE_S = 15
"""Seconds after which a connection without a request is closed."""

MAX_CONNECTIONS = 2048

MAX_FILES = 65_536
"""Open files that the service asks the system for, where it may."""


class Server(uvicorn.Server):
    """Tells the application when a stop was asked for, before connections are waited for."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop for the signal handler."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM, SIGINT: stop; the second SIGINT: at once."""
        if not self.should_exit:
            print("mai serve: Stopping; what was taken is finished first.", file=sys.stderr, flush=True)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._service.stopping.set)
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        # Not uvicorn's own, which kills the process with the same signal when all is done.
        self.should_exit = True


def run(app: FastAPI, settings: ServeSettings, *, is_quiet: bool = False) -> int:
    """Serve until a signal ends it; the exit code.

    Raises:
        MaiError: the port cannot be had.
    """
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        http=Impatient,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=settings.proxy is not None,
        forwarded_allow_ips=settings.proxy or "",
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=round(settings.timeout_s + GRACE_S),
        limit_concurrency=None,
        backlog=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=64 * 2**10,
    )
    _may_open_files()
    bound = listen(settings.host, settings.port)
    host, port = bound.getsockname()[:2]
    if not is_quiet:
        shown = f"[{host}]" if ":" in host else host
        print(
            f"mai serve: http://{shown}:{port}/ (page), /docs (interface); {settings.n_workers} "
            f"{'worker' if settings.n_workers == 1 else 'workers'}. "
            "Ctrl-C stops it.",
            file=sys.stderr,
            flush=True,
        )
    server = Server(config, service)
    server.run(sockets=[bound])  # on uvloop where it is
    return 1 if service.desk.failure is not None or not server.started else 0


def _may_open_files() -> None:
    """Each upload has a connection and a file: the 1,024 that systems give at first are 500 idle clients."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # less than that was allowed after all
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        MaiError: the address is taken, or is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise MaiError(
            f"The service cannot listen on {host} port {port}: {error.strerror or error}. "
            "Choose another --port or --host."
        ) from error
    bound.set_inheritable(False)
    return bound
