"""Large pages of Parquet files are read here and not by pyarrow: the same rows, in a fraction of the memory."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mai.images import page_heads, pages
from mai.images.shards import Member, members, of_file

arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra data)")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra data)")

STRUCT = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])


def rows(n: int, seed: int = 0) -> list[Any]:
    """Rows as a Hugging Face set has them: pictures, some twice, some empty, some with a path only."""
    draw = random.Random(seed)
    made = [draw.randbytes(draw.choice([0, 1, 50, 3000])) for _ in range(n // 2)]
    found: list[Any] = []
    for number in range(n):
        kind = draw.random()
        if kind < 0.1:
            found.append(None)
        elif kind < 0.2:
            found.append({"bytes": None, "path": f"{number}.png"})
        else:
            found.append({"bytes": draw.choice(made), "path": None})
    return found


def read(path: Path, max_bytes: int = 1000, places: bool = False) -> list[Member]:
    return list(members(of_file(path), max_bytes=max_bytes, places=places))


def told(found: list[Member]) -> list[Any]:
    return [(m.name, m.data, m.place, m.error and (m.error.status, str(m.error))) for m in found]


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_rows_are_those_of_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, version: str, dictionary: bool
) -> None:
    whole = rows(900)
    plain = [row["bytes"] if row and row["bytes"] is not None else b"" for row in whole]
    needed = arrow.schema([arrow.field("jpg", arrow.binary(), nullable=False)])
    tables = {
        "struct": arrow.table({"n": range(900), "image": arrow.array(whole, STRUCT)}),
        "binary": arrow.table({"image": arrow.array([b or None for b in plain], arrow.large_binary())}),
        "required": arrow.table({"jpg": plain}, needed),
    }
    for name, table in tables.items():
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(
            table, path, compression=compression, data_page_version=version, use_dictionary=dictionary,
            row_group_size=400, data_page_size=20_000,
        )  # fmt: skip
        monkeypatch.setattr(pages, "LARGE", 2**30)
        usual = read(path)
        monkeypatch.setattr(pages, "LARGE", 0)
        is_ours = []
        real = pages.Column.values
        monkeypatch.setattr(
            pages.Column, "values", lambda *a, real=real, seen=is_ours: (seen.append(1), real(*a))[1]
        )
        assert told(read(path)) == told(usual)
        monkeypatch.setattr(pages.Column, "values", real)
        assert len(usual) == 900
        assert len(is_ours) == (0 if compression == "lz4" else 3)  # what we cannot read is left to pyarrow


MEASURE = """
import resource, sys
from pathlib import Path
import pyarrow.parquet
from mai.images.shards import members, of_file
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = [(m.error.status if m.error else len(m.data)) for m in members(of_file(Path(sys.argv[1])), max_bytes=2**20)]
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is measured in kB on Linux only")
@pytest.mark.parametrize(
    ("compression", "times"),
    [("none", 0.4), ("zstd", 0.4), ("snappy", 2.5)],  # 4.2, 5.2, 5.2 with pyarrow alone
)
def test_a_huge_value_is_refused_without_being_held(tmp_path: Path, compression: str, times: float) -> None:
    size = 64
    path = tmp_path / "a.parquet"
    big = random.Random(1).randbytes(size * 2**20)
    column = [{"bytes": b, "path": None} for b in (b"abc", big, b"abcd")]
    parquet.write_table(arrow.table({"image": arrow.array(column, STRUCT)}), path, compression=compression)
    del big, column
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True, timeout=300
    )
    found, _, grown = answer.stdout.strip().rpartition(" ")
    assert found == "[3, 'too_large', 4]"
    assert float(grown) < times * size


def test_damaged_pages_end_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LARGE", 0)
    path = tmp_path / "a.parquet"
    draw = random.Random(5)
    for compression in ("none", "snappy", "zstd"):
        parquet.write_table(
            arrow.table({"image": arrow.array(rows(60), STRUCT)}), path, compression=compression
        )
        sound = path.read_bytes()
        n_groups_end = sound.rfind(b"PAR1") - int.from_bytes(sound[-8:-4], "little")
        for _ in range(150):
            data = bytearray(sound)
            for _ in range(draw.randint(1, 4)):
                data[draw.randrange(4, n_groups_end)] = draw.randrange(256)
            path.write_bytes(bytes(data))
            found = read(path, max_bytes=10_000)
            assert 0 < len(found) <= 61
            assert all(m.data is not None or m.error is not None for m in found)


def test_a_header_too_large_for_us_is_left_to_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some writers put the least and the greatest value into it: two pictures."""
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"image": arrow.array(rows(60), STRUCT)}), path, use_dictionary=False)
    usual = read(path)
    monkeypatch.setattr(pages, "LARGE", 0)

    def too_long(data: bytes) -> None:
        raise IndexError

    monkeypatch.setattr(page_heads, "_fields", too_long)
    assert told(read(path)) == told(usual)


class Chunk:
    """What of pyarrow's ColumnChunkMetaData is asked for."""

    compression, data_page_offset, has_dictionary_page = "ZSTD", 0, False

    def __init__(self, n_bytes: int) -> None:
        self.total_compressed_size = n_bytes


def varint(number: int) -> bytes:
    pieces = []
    while number >= 0x80:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*pieces, number])


def header(n_bytes: int, n_packed: int, own: bytes, *more: bytes) -> bytes:
    """A data page's: kind 0, sizes, and its own header (field 5) as it is given."""
    return (
        b"\x15\x00\x15"
        + varint(2 * n_bytes)
        + b"\x15"
        + varint(2 * n_packed)
        + own
        + b"".join(more)
        + b"\x00"
    )


PLAIN = b"\x2c\x15" + varint(2 * 3) + b"\x15\x00\x00"  # three values


@pytest.mark.parametrize(
    "head",
    [
        header(9, 9, PLAIN, b"\x19\xf2" + varint(2**60)),  # 2^60 booleans
        header(9, 9, PLAIN, b"\x19\xf7" + varint(2**60)),  # 2^60 numbers of eight bytes
        header(9, 9, b"\x25\x02"),  # a number where the page's own header should be
        header(9, 2**70, PLAIN),
        header(2**70, 9, PLAIN),
        header(9, 9, PLAIN, b"\x19" + b"\x19" * 5000),  # lists in lists
        b"\x15\x00\x19\x05\x15\x00" + PLAIN + b"\x00",  # a list where the size should be
    ],
)
def test_a_hostile_header_ends_at_once(head: bytes) -> None:
    data = head + bytes(100)
    with pytest.raises(ValueError, match="header is damaged"):
        pages.Column(arrow.BufferReader(data), Chunk(len(data)), 1)


def test_a_page_that_unpacks_to_more_than_it_says_is_not_followed() -> None:
    """Some kB of zstd that become 100 MiB behind a header that says 20: levels of 90 MiB, and values without end."""
    value = (1020).to_bytes(4, "little") + bytes(1020)
    for n_levels, start in ((1, (90 * 2**20).to_bytes(4, "little")), (0, b"")):
        bomb = arrow.compress(start + value * (100 * 2**10), codec="zstd", asbytes=True)
        own = b"\x2c\x15" + varint(2 * 2**26) + b"\x15\x00\x00"
        data = header(20 * 2**20, len(bomb), own) + bomb
        column = pages.Column(arrow.BufferReader(data), Chunk(len(data)), n_levels)
        assert column.is_large
        n = 0
        with pytest.raises(EOFError, match="ends too soon"):
            for _ in column.values(2000):
                n += 1
        assert n == (0 if n_levels else 20 * 2**10)


MOST = 2**31 - 1


def dictionary_page(n_bytes: int, n_values: int, packed: bytes) -> bytes:
    own = b"\x4c\x15" + varint(2 * n_values) + b"\x15\x00\x00"  # field 7
    return b"\x15\x04" + header(n_bytes, len(packed), own)[2:] + packed


def grown(work: Callable[[], None]) -> int:
    """Most bytes that pyarrow and Python held at once for it, over what they held before."""
    tracemalloc.start()
    before = arrow.default_memory_pool().max_memory()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] + arrow.default_memory_pool().max_memory() - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [b"", b"x" * 20])
def test_a_dictionary_of_endless_equal_values_is_not_held(value: bytes) -> None:
    """20 kB of zstd that hold what they claim, 200 MiB: 50 million empty values, or 9 million of 20 bytes."""
    one = len(value).to_bytes(4, "little") + value
    n = 200 * 2**20 // len(one)
    packed = arrow.compress(one * n, codec="zstd", asbytes=True)
    data = dictionary_page(n * len(one), n, packed)
    column = pages.Column(arrow.BufferReader(data), Chunk(len(data)), 0)
    assert column.is_large

    def read_it() -> None:
        with pytest.raises(ValueError, match="a dictionary repeats its values"):
            list(column.values(2000))

    assert grown(read_it) < 2**22


def test_a_dictionary_claims_no_more_values_than_it_has_room_for() -> None:
    for n_bytes in (17 * 2**20, MOST):
        data = dictionary_page(
            n_bytes, n_bytes // 4 + 1, arrow.compress(bytes(2**20), codec="zstd", asbytes=True)
        )
        column = pages.Column(arrow.BufferReader(data), Chunk(len(data)), 0)
        with pytest.raises(ValueError, match=r"a dictionary of [\d,]+ bytes claims [\d,]+ values"):
            list(column.values(2000))


def test_a_page_of_snappy_claims_no_more_than_snappy_can_hold() -> None:
    """Forty bytes behind a header, and a length before them, that say 2 GiB: nothing is laid out for that."""
    packed = varint(MOST) + bytes(40)
    data = header(MOST, len(packed), PLAIN) + packed
    chunk = Chunk(len(data))
    chunk.compression = "SNAPPY"
    column = pages.Column(arrow.BufferReader(data), chunk, 0)
    assert column.is_large

    def read_it() -> None:
        with pytest.raises(ValueError, match=r"a page of 45 bytes claims to unpack to 2,147,483,647"):
            list(column.values(2000))

    assert grown(read_it) < 2**20


def test_the_densest_page_that_snappy_writes_is_read() -> None:
    value = bytes(50 * 2**20)
    body = len(value).to_bytes(4, "little") + value
    packed = arrow.compress(body, codec="snappy", asbytes=True)
    assert len(body) / len(packed) > 20
    data = header(len(body), len(packed), b"\x2c\x15\x02\x15\x00\x00") + packed
    chunk = Chunk(len(data))
    chunk.compression = "SNAPPY"
    assert list(pages.Column(arrow.BufferReader(data), chunk, 0).values(2**30)) == [value]


def test_levels_that_unpack_without_end_are_not_held() -> None:
    """200 MiB of levels, as claimed, in 20 kB: each row is empty."""
    n = 200 * 2**20
    packed = arrow.compress(n.to_bytes(4, "little") + b"\x02\x00" * (n // 2), codec="zstd", asbytes=True)
    data = header(n + 4, len(packed), b"\x2c\x15" + varint(2 * MOST) + b"\x15\x00\x00") + packed
    column = pages.Column(arrow.BufferReader(data), Chunk(len(data)), 1)

    def read_some() -> None:
        values = column.values(2000)
        assert [next(values) for _ in range(1000)] == [None] * 1000

    assert grown(read_some) < 2**23


def test_a_file_whose_page_claims_too_much_ends_in_a_row(tmp_path: Path) -> None:
    """A whole file of pyarrow's, with the size in its page's header made greater, though not beyond what snappy can."""
    path = tmp_path / "a.parquet"
    big = random.Random(3).randbytes(17 * 2**20)
    table = arrow.table({"image": arrow.array([big, b"\xff\xd8", big], arrow.binary())})
    parquet.write_table(table, path, compression="snappy")
    data = bytearray(path.read_bytes())
    place = parquet.ParquetFile(path).metadata.row_group(0).column(0).dictionary_page_offset
    assert data[place : place + 3] == b"\x15\x04\x15"
    size = data[place + 3 : place + 7]
    assert size[3] < 0x80 <= size[2]
    said = varint(2 * (2**27 - 2))  # as many bytes
    assert len(said) == 4
    data[place + 3 : place + 7] = said
    path.write_bytes(bytes(data))
    (found,) = read(path, max_bytes=2**30)
    assert found.error is not None
    assert found.error.status == "not_an_image"
    assert "claims to unpack to 134,217,726" in str(found.error)


def test_rows_that_pyarrow_passes_over_are_told(tmp_path: Path) -> None:
    """A page whose header claims to be an index: pyarrow gives the other row groups' rows and no error."""
    path = tmp_path / "a.parquet"
    table = arrow.table({"image": arrow.array([b"\xff\xd8 %d" % n for n in range(20)], arrow.binary())})
    parquet.write_table(table, path, row_group_size=10, use_dictionary=False)
    data = bytearray(path.read_bytes())
    place = parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    assert data[place : place + 2] == b"\x15\x00"
    data[place + 1] = 2
    path.write_bytes(bytes(data))
    found = read(path)
    assert [m.data is not None for m in found] == [True] * 10 + [False]
    assert found[-1].error is not None
    assert "0 rows in place of 10" in str(found[-1].error)
