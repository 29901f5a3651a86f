"""A zip's list is read entry by entry: as zipfile reads it, in memory that does not grow."""

from __future__ import annotations

import io
import random
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from mai.images.shards import members, of_file
from mai.images.zip_list import Zip


def told(infos: list[zipfile.ZipInfo]) -> list[tuple[object, ...]]:
    return [(i.filename, i.file_size, i.compress_size, i.CRC, i.header_offset, i.compress_type, i.flag_bits)
            for i in infos]  # fmt: skip


@pytest.mark.parametrize("front", [b"", b"#!/bin/sh\n" * 40])
@pytest.mark.parametrize("wide", [False, True])
def test_entries_are_those_of_zipfile(front: bytes, wide: bool) -> None:
    stream = io.BytesIO()
    stream.write(front)
    data = random.Random(1).randbytes(400) * 9
    with zipfile.ZipFile(stream, "w" if not front else "a", zipfile.ZIP_DEFLATED) as archive:
        for number, name in enumerate(["a.jpg", "ordner/größe.png", "d/", "日本.webp", ".h/x"]):
            with archive.open(name, "w", force_zip64=wide) as member:
                member.write(b"" if name.endswith("/") else data[number:])
        archive.comment = b"PK\x05\x05 a comment"
    with zipfile.ZipFile(stream) as archive:
        listed = Zip(stream)
        found = list(listed.entries())
        assert told(found) == told(archive.infolist())
        for own, entry in zip(found, archive.infolist(), strict=True):
            assert listed.archive.open(own).read() == archive.open(entry).read()


def test_memory_stays_flat_over_a_long_list(tmp_path: Path) -> None:
    """More members than the old end of a zip can count, so that Zip64's is read."""
    path = tmp_path / "long.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(66_000):
            archive.writestr(f"{number:06}", b"")
    tracemalloc.start()
    with path.open("rb") as file:
        n = sum(1 for _ in Zip(file).entries())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 66_000
    assert peak < 2**20


def test_damaged_lists_end_in_a_row(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(5):
            archive.writestr(f"{number}.jpg", b"\xff\xd8\xff" + bytes(50))
    sound, draw = stream.getvalue(), random.Random(2)
    path = tmp_path / "a.zip"
    for _ in range(400):
        data = bytearray(sound)
        for _ in range(draw.randint(1, 5)):
            data[draw.randrange(len(data) - 330, len(data))] = draw.randrange(256)
        path.write_bytes(bytes(data))
        assert len(list(members(of_file(path)))) <= 6


def test_members_and_list_are_not_read_in_turns() -> None:
    """Of an address each step from one end of the file to the other is a request of megabytes."""
    places: list[int] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            places.append(self.tell())
            return super().read(size)

    stream = Watched()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(4000):
            archive.writestr(f"{number:060}", b"x")  # a list of 424 kB, two pieces
    listed = Zip(stream)
    places.clear()
    n = sum(len(listed.archive.open(entry).read()) for entry in listed.entries())
    assert n == 4000
    assert sum(place >= archive.start_dir for place in places) == 2
