"""The pictures of a job: the files that came, or the members of an archive, each as a file under a number of ours.

Members are read one after another within limits of bytes and number; their names are shown and used for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mai.errors import ImageError
from mai.images import shards
from mai.serve.uploads import shown


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a job.

    Attributes:
        number: its place.
        path: what it is called.
        file: where its bytes lie.
        error: why there are none.
        is_ours: the file is a copy, to be deleted.
    """

    number: int
    path: str
    file: Path
    error: ImageError | None = None
    is_ours: bool = False


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


def items(
    folder: Path, names: tuple[str, ...], archive: str | None, max_file_bytes: int, max_files: int
) -> Iterator[Item]:
    """The pictures of a job, in order.

    Args:
        folder: of the job; file N lies under its number.
        names: what the client called the files.
        archive: the kind of the only file, if it is one.
        max_file_bytes: a larger member gets an error.
        max_files: members behind that number are told in one last error.
    """
    if archive is None:
        for number, name in enumerate(names):
            yield Item(number, name, folder / str(number))
        return
    label = names[0] if names else archive
    file = folder / "0"
    # Its name of ours says the kind to MAI's readers of shards, which hold to the same limits in a scan.
    shard = shards.Shard(f"archive.{archive}", lambda: file.open("rb"), file.stat().st_size, file)
    for number, member in enumerate(shards.members(shard, max_bytes=max_file_bytes)):
        path = f"{label}::{shown(member.name)}" if member.name is not None else label
        if number >= max_files:
            told = ImageError(
                "too_large", f"The archive has more than {max_files:,} pictures; the rest are left out."
            )
            yield Item(number, label, folder, told)
            return
        own = folder / f"member-{number}"
        if member.data is not None:
            own.write_bytes(member.data)
        yield Item(number, path, own, member.error, is_ours=True)
