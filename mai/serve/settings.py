"""What a service is told when it starts: where it listens, whom it lets in, what a request may cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mai.errors import UsageError
from mai.pipeline import ScanSettings
from mai.serve.limits import Pace

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that nobody outside this machine reaches."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """See `mai serve --help`; sizes in bytes, times in seconds.

    Attributes:
        scan: detectors and operating point of every answer.
        host: address to listen on.
        port: 0 lets the system choose.
        keys: file of hashed keys; None: no key is asked for.
        is_open: listening beyond this machine without keys was asked for in so many words.
        rate: images a minute that one key, or one address where there are no keys, may send; None: no limit.
        n_workers: processes that look at images.
        queue: most images taken and not answered yet.
        timeout_s: time that one image may take in a worker.
        wait_s: time that one image may wait for a worker.
        pace: how fast a request's body must arrive.
        max_files: images of one request.
        memory_mb: data memory of one worker; None: no limit.
        data: folder of batch jobs; None: no jobs.
        keep_s: time after which a finished job is deleted.
        max_job_bytes: body of a job.
        max_job_files: images of a job.
        max_archive_members: entries of any kind in a job's archive.
        archive_s: time that reading a job's archive may take.
        has_urls: addresses of pictures may be given in their place.
        hosts: names under which the service is reached, beside its address; empty beyond loopback: any.
        proxy: address of a reverse proxy whose X-Forwarded-For is believed.
        share: of the room for uploads, of waiting jobs and of the queue that one client may have, above 0 and at most
            1; None: a half where clients can be told apart, else all.
    """

    scan: ScanSettings = field(default_factory=ScanSettings)
    host: str = "127.0.0.1"
    port: int = 8000
    keys: Path | None = None
    is_open: bool = False
    rate: int | None = None
    n_workers: int = 1
    queue: int = 64
    timeout_s: float = 30.0
    wait_s: float = 120.0
    pace: Pace = field(default_factory=Pace)
    max_files: int = 32
    memory_mb: int | None = 3072
    data: Path | None = None
    keep_s: float = 86_400.0
    max_job_bytes: int = 2 * 2**30
    max_job_files: int = 10_000
    max_archive_members: int = 100_000
    archive_s: float = 300.0
    has_urls: bool = False
    hosts: tuple[str, ...] = ()
    proxy: str | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is not safe, or cannot be.

        Raises:
            UsageError: it would listen beyond this machine unguarded; a queue that holds less than one request; a
                share that is none.
        """
        if not self.is_local and self.keys is None and not self.is_open:
            raise UsageError(
                f"--host {self.host} lets others reach the service. Give --keys FILE (mai serve --keys FILE "
                "--new-key NAME makes one), or say --no-auth if everybody who reaches it may use it."
            )
        if self.keys is not None and self.is_open:
            raise UsageError("--keys and --no-auth exclude each other.")
        if self.queue < self.max_files:
            raise UsageError(
                f"--queue {self.queue} is less than the {self.max_files} images that one request may bring "
                "(--max-files)."
            )
        if self.share is not None and not 0 < self.share <= 1:
            raise UsageError(f"--client-share {self.share:g} is no share. Give one above 0 and at most 1.")

    @property
    def is_local(self) -> bool:
        """Only this machine reaches it."""
        return self.host in LOOPBACK

    @property
    def client_share(self) -> float:
        """What one client may have of what is there for all.

        On loopback without keys or a proxy that is believed, all have one address, and a share would be one for all.
        """
        if self.share is not None:
            return self.share
        return 1.0 if self.is_local and self.keys is None and self.proxy is None else 0.5

    @property
    def max_body(self) -> int:
        """Most bytes of a request that is no job: four of the largest pictures."""
        return 4 * self.scan.limits.max_bytes
