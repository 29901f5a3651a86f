"""A zip's list is read entry by entry: as zipfile reads it, in memory that does not grow."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
import zlib
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


def packed(entries: list[tuple[str, int, int]], body: bytes, n_bytes: int) -> bytes:
    """A zip whose list says (name, where its header is, bytes packed), whatever lies there."""
    listed = []
    for name, at, n_packed in entries:
        facts = (20, 20, 0, 8, 0, 0, 0, n_packed, n_bytes, len(name), 0, 0, 0, 0, 0, at)
        listed.append(struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *facts) + name.encode())
    n, size = len(entries), sum(map(len, listed))
    return b"".join([body, *listed, struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, n, n, size, len(body), 0)])


def kernel(n_bytes: int) -> bytes:
    """Bytes of a picture's kind, deflated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(b"\xff\xd8\xff" + bytes(n_bytes - 3)) + packer.flush()


def header(name: str, n_packed: int, n_bytes: int, extra: bytes = b"") -> bytes:
    facts = (20, 0, 8, 0, 0, 0, n_packed, n_bytes, len(name), len(extra))
    return struct.pack("<4s5H3L2H", b"PK\x03\x04", *facts) + name.encode() + extra


def bombs() -> dict[str, bytes]:
    """Small files that unpack to much: one header for all; each header quoted by the one before, in stored deflate
    blocks or in an extra field; and one that has the list for its bytes."""
    n_bytes, n = 1_000_000, 50
    core = kernel(n_bytes)
    names = [f"{number:02}.jpg" for number in range(n)]
    one = header(names[0], len(core), n_bytes) + core
    heads = [header(name, len(core), n_bytes) for name in names]
    body, places = core, []
    for head in reversed(heads):  # each quotes the next header as a stored block of its own data
        quote = b"" if body is core else struct.pack("<BHH", 0, len(heads[0]), 0xFFFF ^ len(heads[0]))
        body = head + quote + body
        places.append(len(body))
    quoted = [
        (name, len(body) - at, at - len(heads[0])) for name, at in zip(names, reversed(places), strict=True)
    ]
    extra = header(names[0], len(core), n_bytes, struct.pack("<2H", 0x9999, len(heads[1])) + heads[1]) + core
    return {
        "one header": packed([(name, 0, len(core)) for name in names], one, n_bytes),
        "quoted": packed(quoted, body, n_bytes),
        "extra field": packed(
            [(names[0], 0, len(core)), (names[1], len(heads[0]) + 4, len(core))], extra, n_bytes
        ),
        "the list": packed([(names[0], 0, len(core) + 60)], one, n_bytes),
        "in another order": packed(
            [(names[2], len(one), len(core)), (names[0], 0, len(core)), (names[1], 0, len(core))],
            one + header(names[2], len(core), n_bytes) + core, n_bytes,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(bombs()))
def test_members_that_share_bytes_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(bombs()[kind])
    *first, last = members(of_file(path))
    assert len(first) <= 1
    assert last.error is not None
    assert last.error.status == "unsupported"
    assert "as in a zip bomb" in str(last.error)


def test_a_list_in_another_order_is_no_bomb(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(50):
            archive.writestr(f"{number}.jpg", b"\xff\xd8\xff" + bytes(number))
        random.Random(3).shuffle(archive.filelist)
    (tmp_path / "a.zip").write_bytes(stream.getvalue())
    found = list(members(of_file(tmp_path / "a.zip")))
    assert [member.name for member in found] == [info.filename for info in archive.filelist]
    assert all(member.data for member in found)


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
