"""The unfinished parts under work/, named after their writers, so that a dead one's can be told from a living one's.

    .generate-00012.2-1f0c9a3e-4711-893021.tmp      pass, shard, number of the lease, machine, process, its start

A worker removes its own file however it ends, kill -9 and a lost machine apart. What those leave is removed when a
worker starts, when a shard is taken over, and when the last part is there.
"""

from __future__ import annotations

import os
import re
import zlib
from contextlib import suppress
from pathlib import Path

from mai.jobs.leases import Lease, Leases, machine, started

_NAME = re.compile(
    r"^\.(?P<task>.+)-(\d{5,})\.(\d+)-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<started>\d+)\.tmp$"
)


def unfinished(place: Path, task: str, lease: Lease) -> Path:
    """The file that the holder of a lease writes a part into."""
    pid = os.getpid()
    writer = f"{_machine()}-{pid}-{started(pid) or 0}"
    return place / f".{task}-{lease.shard:05d}.{lease.number}-{writer}.tmp"


def clear(place: Path, task: str, leases: Leases) -> None:
    """Remove the unfinished parts of a pass whose writers are gone.

    A writer on this machine is gone when its process is. Of one elsewhere nothing is known but its silence: it is taken
    to be gone once nobody holds the lease and the file has not grown for as long as a lease lasts.

    Args:
        place: the folder `work`.
        task: name of the pass; files of others are left alone.
        leases: of the pass.
    """
    found = [(path, match) for path in place.glob(f".{task}-*.tmp") if (match := _NAME.match(path.name))]
    for path, match in found:
        if match["task"] == task and _is_left(path, match, leases):
            with suppress(OSError):  # another was quicker, or Windows keeps what is open
                path.unlink()


def _is_left(path: Path, name: re.Match[str], leases: Leases) -> bool:
    if name["machine"] == _machine() and Path("/proc/self/stat").exists():
        return (started(int(name["pid"])) or "0") != name["started"]
    held = leases.held().get(int(name[2]))
    if held is not None and held.number == int(name[3]) and not held.is_stale(leases.lease_s):
        return False
    try:
        return leases.now() - path.stat().st_mtime > leases.lease_s
    except OSError:
        return False  # it is gone already


def _machine() -> str:
    return f"{zlib.crc32(machine().encode()):08x}"
