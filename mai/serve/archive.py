"""The pictures of a job: the files that came, or the members of an archive, each as a file under a number of ours.

Members are read one after another within limits of bytes, number and time. Their names are only shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mai.errors import ImageError
from mai.images import shards
from mai.serve.uploads import shown


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one job's archive may cost.

    Attributes:
        max_file_bytes: a larger member gets an error.
        max_files: pictures; those behind are told in one last error.
        max_members: entries of any kind, likewise.
        timeout_s: seconds of reading, over all members.
        memory_mb: data memory of the process that reads; None: no limit.
    """

    max_file_bytes: int
    max_files: int
    max_members: int = 100_000
    timeout_s: float = 300.0
    memory_mb: int | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a job.

    Attributes:
        number: its place.
        path: what it is called.
        file: where its bytes lie.
        error: why there are none.
        is_ours: the file is a copy, to be deleted.
        ends_archive: the error is the archive's, and nothing comes behind it.
    """

    number: int
    path: str
    file: Path
    error: ImageError | None = None
    is_ours: bool = False
    ends_archive: bool = False


def kind_of(file: Path, name: str) -> str | None:
    """`zip` or `tar` if a file is an archive, None if it is not; by its first bytes, then its name."""
    with file.open("rb") as stream:
        head = stream.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head[257:262] == b"ustar" or (
        head.startswith(b"\x1f\x8b") and name.lower().endswith((".tgz", ".tar.gz"))
    ):
        return "tar"
    return "tar" if name.lower().endswith(".tar") else None


def items(folder: Path, names: tuple[str, ...], archive: str | None, bounds: Bounds) -> Iterator[Item]:
    """The pictures of a job, in order. An archive's are unpacked as they are taken: see unpack.py for who takes them.

    Args:
        folder: of the job; file N lies under its number.
        names: what the client called the files.
        archive: the kind of the only file, if it is one.
        bounds: of an archive.
    """
    if archive is None:
        for number, name in enumerate(names):
            yield Item(number, name, folder / str(number))
        return
    label = names[0] if names else archive
    file = folder / "0"
    # Its name of ours says the kind to MAI's readers of shards, which hold to the same limits in a scan.
    shard = shards.Shard(f"archive.{archive}", lambda: file.open("rb"), file.stat().st_size, file)
    found = shards.members(shard, max_bytes=bounds.max_file_bytes, max_entries=bounds.max_members)
    for number, member in enumerate(found):
        if member.name is None:
            yield Item(number, label, folder, member.error, ends_archive=True)
            return
        if number >= bounds.max_files:
            told = ImageError(
                "too_large",
                f"The archive has more than {bounds.max_files:,} pictures; the rest are left out. Send it in parts.",
            )
            yield Item(number, label, folder, told, ends_archive=True)
            return
        own = folder / f"member-{number}"
        if member.data is not None:
            own.write_bytes(member.data)
        yield Item(number, f"{label}::{shown(member.name)}", own, member.error, is_ours=True)
