"""A zip's list is read entry by entry: as zipfile reads it, in memory that does not grow."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import pytest

from mai.images.shards import Member, members, of_file
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


PICTURES = {f"{number}.jpg": b"\xff\xd8\xff" + bytes([number]) * 50 for number in range(5)}


def archive_of(pictures: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in pictures.items():
            archive.writestr(name, data)
    return stream.getvalue()


def rows_of(path: Path, data: bytes) -> list[Member]:
    path.write_bytes(data)
    return list(members(of_file(path)))


def listed(data: bytes) -> tuple[list[zipfile.ZipInfo], str | None]:
    """What zipfile reads of a list, and what it says of one that is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.infolist(), None
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        return [], str(error)


ENTRY, END = 46 + 5, 22
LIST = -(5 * ENTRY + END)
"""Where the list begins, from the end of the archive."""
LIST_ENDS = (
    "File is not a zip file", "Bad offset", "Bad magic number for central directory", "Truncated central directory",
    "Corrupt zip64 extra field", "is not UTF-8", "as in a zip bomb",
)  # fmt: skip


@pytest.mark.parametrize(
    ("place", "new", "n_sound", "status", "told"),
    [
        # The end of the archive.
        (
            -END,
            b"PQ",
            0,
            "not_an_image",
            "The shard cannot be read as a zip archive: File is not a zip file.",
        ),
        (-END + 12, b"\xff\xff\x00\x00", 0, "not_an_image", "cannot be read as a zip archive: Bad offset"),
        (-END + 16, b"\xff\xff\x00\x00", 0, "not_an_image", "cannot be read as a zip archive: Bad offset"),
        # Of the list: the first entry, the third, its name's length, the last entry's.
        (LIST, b"PQ", 0, "not_an_image", "cannot be read as a zip archive: Bad magic number"),
        (
            LIST + 2 * ENTRY,
            b"PQ",
            2,
            "truncated",
            "breaks off or is damaged after 2 entries: Bad magic number",
        ),
        (LIST + 2 * ENTRY + 28, b"\x06", 3, "truncated", "is damaged after 3 entries: Bad magic number"),
        (LIST + 4 * ENTRY + 28, b"\xff\xff", 4, "truncated", "after 4 entries: Truncated central directory"),
        (LIST + 2 * ENTRY + 9, b"\x08", 2, "truncated", "is not UTF-8"),
        (LIST + 2 * ENTRY + 20, b"\xff\xff\xff\xff", 2, "truncated", "Corrupt zip64 extra field"),
        (LIST + 2 * ENTRY + 42, b"\x05\x00", 2, "unsupported", "as in a zip bomb"),
    ],
)
def test_a_damaged_list_says_what_and_after_how_many(
    tmp_path: Path, place: int, new: bytes, n_sound: int, status: str, told: str
) -> None:
    data = bytearray(archive_of(PICTURES))
    assert data[LIST : LIST + 4] == b"PK\x01\x02"
    data[len(data) + place : len(data) + place + len(new)] = new
    if "UTF-8" in told:
        data[LIST + 2 * ENTRY + 46] = 0xFF
    *before, last = rows_of(tmp_path / "a.zip", bytes(data))
    assert last.error is not None
    assert (last.name, last.error.status) == (None, status), str(last.error)
    assert told in str(last.error)
    assert [row.data for row in before[:2]] == list(PICTURES.values())[: min(2, n_sound)]
    assert len(before) == min(n_sound, 2) + (n_sound == 4) * 2


def test_an_entry_without_a_name_is_passed_over(tmp_path: Path) -> None:
    data = bytearray(archive_of({"0.jpg": PICTURES["0.jpg"], "1.jpg": PICTURES["1.jpg"]}))
    start = len(data) - END - ENTRY
    data[start + 28] = 0
    del data[start + 46 : start + ENTRY]
    data[-END + 12] -= 5  # the list's size
    assert [row.data for row in rows_of(tmp_path / "a.zip", bytes(data))] == [PICTURES["0.jpg"]]


@pytest.mark.parametrize(
    ("place", "new", "status", "told"),
    [
        (8, b"\x01\x00", "unsupported", "The member is encrypted. Unpack the archive and scan the folder."),
        (10, b"\x63\x00", "unsupported", "The member cannot be unpacked: "),
        (16, b"\x00\x00\x00\x00", "truncated", "The member is damaged: Bad CRC-32"),
        (24, b"\xff\xff\xff\x7f", "too_large", "The file has 2,147,483,647 bytes; the limit is"),
        (46, b"7", "truncated", "The member is damaged: File name in directory '7.jpg'"),
    ],
)
def test_a_damaged_entry_is_the_row_of_one_member(
    tmp_path: Path, place: int, new: bytes, status: str, told: str
) -> None:
    data = bytearray(archive_of(PICTURES))
    start = len(data) + LIST + 2 * ENTRY + place
    data[start : start + len(new)] = new
    found = rows_of(tmp_path / "a.zip", bytes(data))
    assert len(found) == 5
    damaged = found.pop(2)
    assert damaged.error is not None
    assert (damaged.name, damaged.error.status) == ("7.jpg" if place == 46 else "2.jpg", status)
    assert told in str(damaged.error)
    assert [row.data for row in found] == [PICTURES[f"{n}.jpg"] for n in (0, 1, 3, 4)]


def test_damaged_lists_end_in_the_row_that_zipfile_would_give(tmp_path: Path) -> None:
    """Bytes of the list drawn anew; zipfile, which reads the whole list first, says what is right."""
    sound, draw = archive_of(PICTURES), random.Random(2)
    seen: Counter[str] = Counter()
    for _ in range(400):
        data = bytearray(sound)
        for _ in range(draw.randint(1, 5)):
            data[draw.randrange(len(data) - 330, len(data))] = draw.randrange(256)
        found = rows_of(tmp_path / "a.zip", bytes(data))
        infos, problem = listed(bytes(data))
        errors = [row.error for row in found if row.error is not None]
        whole = [error for error in errors if "zip archive" in str(error)]
        if problem is not None and "version" not in problem:
            assert len(whole) == 1, (problem, errors)
        for last in whole:  # zipfile itself takes what there is of a last entry that claims more
            assert found[-1].error is last
            assert any(words in str(last) for words in LIST_ENDS), str(last)
            if "as in a zip bomb" in str(last):
                status = "unsupported"
            else:
                status = "truncated" if "entries" in str(last) else "not_an_image"
            assert last.status == status
            seen[status] += 1
            errors.remove(last)
        for error in errors:
            assert error.status in ("truncated", "unsupported", "too_large")
            assert str(error).startswith("The ")
            seen[f"member {error.status}"] += 1
        for row in found:
            if row.data is not None:
                assert row.data == PICTURES[row.name or ""]
                assert problem or row.name in {info.filename for info in infos}
    assert (
        min(seen[kind] for kind in ("truncated", "not_an_image", "unsupported", "member truncated")) > 10
    ), seen


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
