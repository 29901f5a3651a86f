"""Who works on which shard: one small file each in a folder that all workers share.

    00012.1     made with O_EXCL: its maker has shard 12. A thread of the worker touches it every few seconds.
    00012.2     made by another when 00012.1 was stale: it has the shard now, the first has lost it

A lease is stale when its process is known to be dead (same machine) or when it was not touched for `lease_s`. Times are
those of the file system, which all machines see alike, not of their clocks. Taking over means to make the next number,
which only one can; nothing is ever renamed, so nobody can take away a fresh lease by mistake.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import threading
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mai.errors import MaiError

LEASE_S = 60.0
_NAME = re.compile(r"^(\d{5,})\.(\d+)$")


class LeaseLostError(MaiError):
    """Another worker took the shard over: this one was silent for too long."""


@cache
def machine() -> str:
    """This machine since its last start, and the process numbers that are valid in it."""
    parts = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id",):
        try:
            parts.append(Path(source).read_text().strip())
        except OSError:
            parts.append(platform.system())
    try:
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        parts.append("")
    return "|".join(parts)


def started(pid: int) -> str | None:
    """When a process of this machine was started, in the kernel's count; None if there is none or it is not told."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def is_dead(owner: dict[str, Any]) -> bool:
    """True only where the owner is known to be gone: a process of this machine that is no more."""
    if owner.get("machine") != machine() or not Path("/proc/self/stat").exists():
        return False
    return started(int(owner.get("pid", -1))) != owner.get("started")


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as others see it.

    Attributes:
        shard: which.
        number: of the lease; the highest has the shard.
        owner: what its file says; empty while it is being written.
        age_s: since it was touched, by the file system's clock.
    """

    shard: int
    number: int
    owner: dict[str, Any]
    age_s: float

    def is_stale(self, lease_s: float) -> bool:
        """True where another may take it over."""
        return self.age_s > lease_s or (bool(self.owner) and is_dead(self.owner))


class Leases:
    """The leases of one pass.

    Args:
        folder: of the lease files, made if it is not there.
        lease_s: silence in seconds after which a lease is stale.
    """

    def __init__(self, folder: Path, lease_s: float = LEASE_S) -> None:
        self.folder, self.lease_s = folder, lease_s
        self.token = uuid.uuid4().hex
        folder.mkdir(parents=True, exist_ok=True)

    def now(self) -> float:
        """The file system's time, in seconds."""
        clock = self.folder / f".clock-{self.token}"
        clock.touch()
        try:
            return clock.stat().st_mtime
        finally:
            clock.unlink(missing_ok=True)

    def held(self) -> dict[int, Held]:
        """The current lease of each shard that has one."""
        names: dict[int, int] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if match := _NAME.match(entry.name):
                    shard, number = int(match[1]), int(match[2])
                    names[shard] = max(number, names.get(shard, 0))
        now = self.now() if names else 0.0
        found = {shard: self._read(shard, number, now) for shard, number in names.items()}
        return {shard: lease for shard, lease in found.items() if lease is not None}

    def _read(self, shard: int, number: int, now: float) -> Held | None:
        path = self._path(shard, number)
        try:
            age = now - path.stat().st_mtime
            text = path.read_text("utf-8")
        except OSError:
            return None  # released meanwhile
        try:
            owner = json.loads(text)
        except ValueError:
            owner = {}
        return Held(shard, number, owner if isinstance(owner, dict) else {}, age)

    def _path(self, shard: int, number: int) -> Path:
        return self.folder / f"{shard:05d}.{number}"

    def take(self, shard: int, before: Held | None) -> Lease | None:
        """The lease of a shard, if nobody else was quicker.

        Args:
            shard: which.
            before: the lease that stands there and is stale; None if there is none.
        """
        number = before.number + 1 if before else 1
        path = self._path(shard, number)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        os.close(handle)
        lease = Lease(path, shard, number, self.token)
        lease.write()
        if before:
            self._path(shard, before.number).unlink(missing_ok=True)
        return lease


class Lease:
    """A shard that is ours until `release`, kept by a thread that touches its file."""

    def __init__(self, path: Path, shard: int, number: int, token: str) -> None:
        self.path, self.shard, self.number = path, shard, number
        self.rows, self.n_rows = 0, 0
        self._facts = {
            "machine": machine(), "pid": os.getpid(), "started": started(os.getpid()), "token": token,
        }  # fmt: skip
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._lost = False
        self._thread: threading.Thread | None = None

    def write(self) -> None:
        """Say who we are and how far; the time of change is the heartbeat."""
        with self._lock:
            text = json.dumps({**self._facts, "rows": self.rows, "n_rows": self.n_rows})
            # Never made anew: one that is gone was taken over.
            handle = os.open(self.path, os.O_WRONLY)
            try:
                os.write(handle, text.encode())
                os.truncate(handle, len(text))
                os.utime(handle)
            finally:
                os.close(handle)

    def beat(self, every_s: float) -> None:
        """Start the heartbeat."""
        self._thread = threading.Thread(target=self._beat, args=(every_s,), daemon=True)
        self._thread.start()

    def _beat(self, every_s: float) -> None:
        while not self._over.wait(every_s):
            try:
                self.write()
            except FileNotFoundError:
                self._lost = True
                return
            except OSError:
                continue  # a disk that is full or away for a moment; others see the silence

    def check(self) -> None:
        """Make sure that the shard is still ours.

        Raises:
            LeaseLostError: another has it.
        """
        following = self.path.with_name(f"{self.shard:05d}.{self.number + 1}")
        if self._lost or not self.path.exists() or following.exists():
            raise LeaseLostError(f"Shard {self.shard} was taken over by another worker.")

    def release(self) -> None:
        """Give the shard up."""
        self._over.set()
        if self._thread:
            self._thread.join()
        self.path.unlink(missing_ok=True)
