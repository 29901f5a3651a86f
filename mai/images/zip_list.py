"""The list of a zip's members, entry by entry: zipfile holds all of it, which is 0.5 kB a member and more.

Source: APPNOTE.TXT of PKWARE, sections 4.3.7 (a member's header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (its
end), 4.5.3 (Zip64).
"""

from __future__ import annotations

import io
import itertools
import struct
import zipfile
from array import array
from collections.abc import Iterator
from typing import BinaryIO

from mai.errors import ImageError

_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_WHERE64 = struct.Struct("<4sLQL")
_MAX_COMMENT = 2**16
_FULL, _FULL_16 = 0xFFFFFFFF, 0xFFFF
_UTF8 = 0x800
_HEADER_BYTES = 30
"""Of a member's own header, before its name (section 4.3.7)."""
_PIECE = 2**18
"""Bytes of the list that are read at once; an entry is at most 46 and twice 65,535 of them."""


class Zip:
    """A zip archive whose members are named one after another.

    Args:
        file: can be read at any place; stays open.

    Raises:
        zipfile.BadZipFile: it has no end, or one that is damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        size, offset, end = _end(file)
        self._start = end - size
        self._size = size
        self._before = self._start - offset  # bytes in front of the archive, as in one that unpacks itself
        if self._start < 0 or self._before < 0:
            raise zipfile.BadZipFile("Bad offset for central directory")
        # An archive of nothing, whose file is then ours: zipfile opens members, and reads no list.
        empty = io.BytesIO(_END.pack(b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0))
        self.archive = zipfile.ZipFile(empty)
        self.archive.fp = file

    def entries(self) -> Iterator[zipfile.ZipInfo]:
        """The members in the order of the list.

        Raises:
            zipfile.BadZipFile: the list is damaged; those before it were given.
            ImageError: members share bytes of the file; of them the first was given at most.
        """
        last, is_checked = 0, False
        for info, end in self._listed():
            if end > self._start:
                raise _overlapping(info)
            if not is_checked and info.header_offset < last:
                self._check_overlaps()  # a list in another order than the members is allowed
                is_checked = True
            last = end
            yield info

    def _check_overlaps(self) -> None:
        """Members that share bytes let a small file unpack to any size (Fifield, A better zip bomb, WOOT 2019).

        Memory: 16 bytes a member.

        Raises:
            zipfile.BadZipFile, ImageError: as `entries`.
        """
        import numpy as np

        begins, ends = array("Q"), array("Q")
        for info, end in self._listed():
            if end > self._start:
                raise _overlapping(info)
            begins.append(info.header_offset)
            ends.append(end)
        order = np.argsort(np.frombuffer(begins, np.uint64), kind="stable")
        first, last = np.frombuffer(begins, np.uint64)[order], np.frombuffer(ends, np.uint64)[order]
        shared = np.flatnonzero(first[1:] < last[:-1])
        if shared.size:
            at = int(order[shared[0] + 1])
            raise _overlapping(next(itertools.islice(self._listed(), at, None))[0])

    def _listed(self) -> Iterator[tuple[zipfile.ZipInfo, int]]:
        """Members, and where each ends at the earliest: what its own header may hold beyond its name is not known."""
        place, end = self._start, self._start + self._size
        begin, piece = place, b""
        while place < end:
            head = piece[place - begin : place - begin + _ENTRY.size]
            n = _ENTRY.size
            if len(head) == n:
                n += sum(_ENTRY.unpack(head)[10:12])
            if place - begin + n > len(piece):
                # Members are read between two entries: of an address, each step from one to the other is a request.
                self._file.seek(place)
                begin, piece = place, self._file.read(_PIECE)
                head = piece[: _ENTRY.size]
            if len(head) < _ENTRY.size:
                raise zipfile.BadZipFile("Truncated central directory")
            entry = _ENTRY.unpack(head)
            if entry[0] != b"PK\x01\x02":
                raise zipfile.BadZipFile("Bad magic number for central directory")
            n_name, n_extra, n_comment = entry[10:13]
            at = place - begin + _ENTRY.size
            rest = piece[at : at + n_name + n_extra]
            if len(rest) < n_name + n_extra:
                raise zipfile.BadZipFile("Truncated central directory")
            place += _ENTRY.size + n_name + n_extra + n_comment
            info = self._info(entry, rest[:n_name], rest[n_name:])
            yield info, info.header_offset + _HEADER_BYTES + n_name + info.compress_size

    def _info(self, entry: tuple[int, ...], name: bytes, extra: bytes) -> zipfile.ZipInfo:
        flags, method, crc, n_packed, n_bytes = entry[3], entry[4], entry[7], entry[8], entry[9]
        try:
            told = name.decode("utf-8" if flags & _UTF8 else "cp437")
        except UnicodeDecodeError:
            raise zipfile.BadZipFile("A name in the central directory is not UTF-8") from None
        info = zipfile.ZipInfo(told)
        info.flag_bits, info.compress_type, info.CRC = flags, method, crc
        info.extract_version, info.extra = entry[2] & 0xFF, extra
        wide = _wide(extra)

        def full(value: int) -> int:
            return next(wide) if value == _FULL else value

        try:
            info.file_size, info.compress_size = full(n_bytes), full(n_packed)
            info.header_offset = full(entry[16]) + self._before
        except StopIteration:
            raise zipfile.BadZipFile("Corrupt zip64 extra field") from None
        return info


def _overlapping(info: zipfile.ZipInfo) -> ImageError:
    return ImageError(
        "unsupported",
        f"The zip archive's member '{info.filename[-200:]}' shares its bytes with another or with the list, as in a "
        "zip bomb; it is read no further. Pack the files anew.",
    )


def _wide(extra: bytes) -> Iterator[int]:
    """The numbers of 64 bits in an entry's extra field, in the order of those that they stand for."""
    place = 0
    while place + 4 <= len(extra):
        kind, n = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            own = extra[place + 4 : place + 4 + n]
            yield from (int.from_bytes(own[i : i + 8], "little") for i in range(0, len(own) // 8 * 8, 8))
            return
        place += 4 + n


def _end(file: BinaryIO) -> tuple[int, int, int]:
    """Size of the list, where it says it begins, and where it ends."""
    n_bytes = file.seek(0, io.SEEK_END)
    start = max(0, n_bytes - _END.size - _MAX_COMMENT)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise zipfile.BadZipFile("File is not a zip file")
    _, _, _, _, n_entries, size, offset, _ = _END.unpack_from(tail, at)
    end = start + at
    if _FULL not in (size, offset) and n_entries != _FULL_16:
        return size, offset, end
    file.seek(max(0, end - _WHERE64.size))
    where = file.read(_WHERE64.size)
    if len(where) < _WHERE64.size or where[:4] != b"PK\x06\x07":
        return size, offset, end
    place = end - _WHERE64.size - _END64.size
    file.seek(max(0, place))
    last = file.read(_END64.size)
    if len(last) < _END64.size or last[:4] != b"PK\x06\x06":
        return size, offset, end
    values = _END64.unpack(last)
    return values[8], values[9], place
