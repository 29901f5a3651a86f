"""Where pictures lie: zip, tables of paths, WebDataset, large folders; S3 and HTTP on real local servers."""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from small_network import make_weights, picture

from mai.images import find as finding
from mai.images import remote
from mai.images.decode import read
from mai.images.find import Found, find
from mai.pipeline import ScanSettings
from mai.scanning.local import scan_local

JPEG, PNG = picture(200, "JPEG"), picture(60)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ScanSettings:
    return ScanSettings(("resnet",), weights=make_weights(tmp_path_factory.mktemp("weights")))


def told(founds: list[Found] | Iterator[Found], settings: ScanSettings) -> list[tuple[str, str]]:
    """Name and status of each row."""
    return [(r.path.rsplit("/", 1)[-1], r.status) for r in scan_local(founds, settings, 1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "pictures"
    home.mkdir()
    for i in range(3):
        (home / f"{i}.jpg").write_bytes(JPEG)
    (home / "nameless").write_bytes(PNG)
    (home / "notes.txt").write_text("no picture")
    return home


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_zip(tmp_path: Path, settings: ScanSettings, method: int) -> None:
    members = {"a/1.jpg": JPEG, "2": PNG, "x.txt": b"text", "__MACOSX/._1.jpg": b"fork", "ü.png": PNG}
    shard = zipped(tmp_path / "s.zip", members, method)
    assert told(find([shard]), settings) == [("1.jpg", "ok"), ("s.zip::2", "ok"), ("s.zip::ü.png", "ok")]
    assert told(find([tmp_path]), settings)[1] == ("s.zip::2", "ok")


def test_bad_members_of_a_zip_are_rows_and_the_rest_goes_on(tmp_path: Path, settings: ScanSettings) -> None:
    shard = zipped(tmp_path / "s.zip", {"1.jpg": JPEG, "2.jpg": JPEG, "3.jpg": JPEG}, zipfile.ZIP_STORED)
    data = bytearray(shard.read_bytes())
    at = data.index(b"2.jpg") + 400
    data[at] ^= 0xFF  # inside the second member: its checksum is wrong now
    shard.write_bytes(data)
    assert [status for _, status in told(find([shard]), settings)] == ["ok", "truncated", "ok"]
    big = zipped(tmp_path / "big.zip", {"bomb.png": PNG + bytes(80 * 2**20), "4.jpg": JPEG})
    assert big.stat().st_size < 2**20
    assert [status for _, status in told(find([big]), settings)] == ["too_large", "ok"]
    shard.write_bytes(data[:-30])
    assert [status for _, status in told(find([shard]), settings)] == ["not_an_image"]


def test_an_encrypted_zip_says_so(tmp_path: Path, settings: ScanSettings) -> None:
    shard = zipped(tmp_path / "s.zip", {"1.jpg": JPEG, "notes.txt": b"x"}, zipfile.ZIP_STORED)
    data = bytearray(shard.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + offset] |= 1
    shard.write_bytes(data)
    (row,) = scan_local(find([shard]), settings, 1)
    assert row.status == "unsupported"
    assert "encrypted" in (row.message or "")


def test_a_corrupt_shard_in_the_middle_costs_its_own_pictures_only(
    tmp_path: Path, settings: ScanSettings
) -> None:
    for number in range(3):
        with tarfile.open(tmp_path / f"part-{number:03}.tar", "w") as archive:
            for name in ("a.jpg", "b.jpg"):
                entry = tarfile.TarInfo(f"{number}{name}")
                entry.size = len(JPEG)
                archive.addfile(entry, io.BytesIO(JPEG))
    middle = tmp_path / "part-001.tar"
    data = bytearray(middle.read_bytes())
    at = data.index(b"1b.jpg")
    data[at : at + 200] = os.urandom(200)
    middle.write_bytes(data)
    pattern = str(tmp_path / "part-{000..002}.tar")  # as WebDataset writes it
    assert told(find([pattern]), settings) == [
        ("part-000.tar::0a.jpg", "ok"),
        ("part-000.tar::0b.jpg", "ok"),
        ("part-001.tar::1a.jpg", "ok"),
        ("part-001.tar", "truncated"),
        ("part-002.tar::2a.jpg", "ok"),
        ("part-002.tar::2b.jpg", "ok"),
    ]


@pytest.mark.parametrize("at", ["", "@"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", 'id,file,label\n1,0.jpg,x\n2,"1.jpg",y\n3,none.jpg,z\n'),
        ("list.csv", "\ufefflabel;Path\r\nx;0.jpg\r\ny;1.jpg\r\nz;none.jpg\r\n"),
        ("list.tsv", "url\tlabel\n0.jpg\tx\n1.jpg\ty\nnone.jpg\tz\n"),
        ("list.csv", "0.jpg\n1.jpg\nnone.jpg\n"),
    ],
)
def test_a_table_of_paths(folder: Path, settings: ScanSettings, at: str, name: str, text: str) -> None:
    listed = folder / name
    listed.write_text(text, "utf-8", newline="")
    rows = [("0.jpg", "ok"), ("1.jpg", "ok"), ("none.jpg", "not_found")]
    assert told(find([f"{at}{listed}"]), settings) == rows


def test_a_table_without_a_column_of_paths_names_its_columns(folder: Path) -> None:
    (folder / "list.csv").write_text("id,label\n1,x\n")
    (found,) = find([folder / "list.csv"])
    assert found.error is not None
    assert "Columns: id, label" in str(found.error)
    assert "list.csv" not in {f.path.rsplit("/", 1)[-1] for f in find([folder])}  # met, not named


def test_bytes_of_a_path_that_are_no_utf8_pass_through_a_csv(tmp_path: Path, settings: ScanSettings) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.jpg"
    Path(os.fsdecode(name)).write_bytes(JPEG)
    (tmp_path / "l.csv").write_bytes(b"file\n" + name + b"\n")
    assert told(find([tmp_path / "l.csv"]), settings) == [("\\xff.jpg", "ok")]


def test_parquet_with_paths(folder: Path, settings: ScanSettings) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra data)")
    from pyarrow import parquet

    names = ["0.jpg", str(folder / "nameless"), None, "gone.jpg"]
    parquet.write_table(arrow.table({"n": [1, 2, 3, 4], "path": names}), folder / "paths.parquet")
    rows = [("0.jpg", "ok"), ("nameless", "ok"), ("paths.parquet::2", "empty"), ("gone.jpg", "not_found")]
    assert told(find([folder / "paths.parquet"]), settings) == rows
    cells = [{"bytes": None, "path": "1.jpg"}, {"bytes": JPEG, "path": "9.jpg"}]
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    parquet.write_table(arrow.table({"image": arrow.array(cells, kind)}), folder / "cells.parquet")
    assert told(find([folder / "cells.parquet"]), settings) == [("1.jpg", "ok"), ("cells.parquet::1", "ok")]
    met = [f for f in find([folder]) if "paths.parquet" in f.path]  # met in a folder it is no list
    assert [f.error.status if f.error else None for f in met] == ["not_an_image"]


def test_a_large_folder_is_taken_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {f"{i:04}.jpg" for i in range(300)}
    for name in names:
        (tmp_path / name).touch()
    whole = [f.path for f in find([tmp_path])]
    assert whole == sorted(whole)
    monkeypatch.setattr(finding, "SORTED", 50)
    founds = find([tmp_path])
    first = [next(founds) for _ in range(100)]
    (tmp_path / "0299.jpg").unlink()  # the folder changes while it is read
    rest = list(founds)
    seen = [Path(f.path).name for f in (*first, *rest)]
    assert len(set(seen)) == len(seen)
    assert names - {"0299.jpg"} <= set(seen) <= names


def test_a_folder_that_changes_while_it_is_scanned(tmp_path: Path, settings: ScanSettings) -> None:
    for i in range(6):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "a.jpg").write_bytes(JPEG)
    records = scan_local(find([tmp_path]), settings, 1)
    statuses = [next(records).status]
    (tmp_path / "2" / "a.jpg").rename(tmp_path / "2" / "b.jpg")
    (tmp_path / "3" / "a.jpg").unlink()
    (tmp_path / "3").rmdir()
    (tmp_path / "4" / "a.jpg").write_bytes(b"")
    statuses += [r.status for r in records]
    assert statuses == ["ok", "ok", "ok", "not_found", "empty", "ok"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    pytest.importorskip("fsspec", reason="fsspec is not installed (extra scale)")
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (extra scale)")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_the_web(web: str, folder: Path, settings: ScanSettings) -> None:
    zipped(folder / "s.zip", {"in.jpg": JPEG})
    with tarfile.open(folder / "s.tar.gz", "w:gz") as archive:
        archive.add(folder / "0.jpg", "in.jpg")
    (folder / "list.csv").write_text(f"url\n{web}/1.jpg\n2.jpg\n")
    (folder / "list.txt").write_text(f"{web}/0.jpg?width=3\n{web}/gone.jpg\n")
    sources = [
        f"{web}/{name}" for name in ("0.jpg", "nameless", "s.zip", "s.tar.gz", "list.csv", "notes.txt")
    ]
    assert told(find([*sources, f"@{web}/list.txt"]), settings) == [
        ("0.jpg", "ok"),
        ("nameless", "ok"),
        ("s.zip::in.jpg", "ok"),
        ("s.tar.gz::in.jpg", "ok"),
        ("1.jpg", "ok"),
        ("2.jpg", "ok"),
        ("notes.txt", "not_an_image"),
        ("0.jpg?width=3", "ok"),
        ("gone.jpg", "not_found"),
    ]


def test_a_server_that_is_not_there_is_a_row(settings: ScanSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (extra scale)")
    monkeypatch.setattr(remote, "_PAUSE_S", 0.01)
    sources = ["http://127.0.0.1:9/a.jpg", "nosuchscheme://x/a.jpg"]
    rows = list(scan_local(find(sources), settings, 1))
    assert [row.status for row in rows] == ["not_readable", "unsupported"]
    assert "127.0.0.1:9 did not give it" in (rows[0].message or "")


def test_larger_than_the_limit_is_not_fetched(web: str, folder: Path) -> None:
    from mai.errors import ImageError

    (folder / "big.jpg").write_bytes(JPEG + bytes(5 * 2**20))
    with pytest.raises(ImageError, match="the limit is 1,000,000") as caught:
        remote.fetch(f"{web}/big.jpg", 1_000_000)
    assert caught.value.status == "too_large"


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """A real S3 server of moto on loopback: the environment that leads to it."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra scale)")
    server_room = pytest.importorskip("moto.server", reason="moto is not installed (extra dev)")
    server = server_room.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture
def bucket(s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address of pictures; more than one page of the list."""
    import boto3

    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    remote._systems.cache_clear()
    client = boto3.client("s3", endpoint_url=s3["AWS_ENDPOINT_URL"])
    name = tmp_path.name.lower().replace("_", "-")
    client.create_bucket(Bucket=name)
    shard = zipped(tmp_path / "s.zip", {"in.jpg": JPEG}).read_bytes()
    for key, data in {
        **{f"set/a/{i}.jpg": JPEG for i in range(5)}, "set/b/nameless": PNG, "set/b/notes.txt": b"text",
        "set/b/shard.zip": shard, "set/c/": b"", "set/c/empty.png": b"", "set/.hidden.jpg": JPEG, "other/x.jpg": JPEG,
    }.items():  # fmt: skip
        client.put_object(Bucket=name, Key=key, Body=data)
    yield f"s3://{name}"
    remote._systems.cache_clear()


WANTED = [(f"{i}.jpg", "ok") for i in range(5)] + [
    ("nameless", "ok"), ("shard.zip::in.jpg", "ok"), ("empty.png", "empty")]  # fmt: skip


def test_s3(bucket: str, settings: ScanSettings) -> None:
    assert told(find([f"{bucket}/set"]), settings) == WANTED
    assert told(find([f"{bucket}/set/"]), settings) == WANTED
    assert told(find([f"{bucket}/set/**/[0-2].jpg"]), settings) == WANTED[:3]
    named = [f"{bucket}/set/a/0.jpg", f"{bucket}/set/gone.jpg", f"{bucket}/none", f"{bucket}/set/b/shard.zip"]
    assert [s for _, s in told(find(named), settings)] == ["ok", "not_found", "not_found", "ok"]
    assert [s for _, s in told(find(["s3://no-such-bucket-here/a/"]), settings)] == ["not_found"]


def test_s3_is_listed_page_by_page(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, _ = remote._system(bucket)
    ask, n_pages = system.call_s3, 0

    def small_pages(method: str, **asked: object) -> object:
        nonlocal n_pages
        n_pages += 1
        return ask(method, **asked, MaxKeys=3)

    monkeypatch.setattr(system, "call_s3", small_pages)
    listed = remote.walk(f"{bucket}/set/")
    assert next(listed).url == f"{bucket}/set/.hidden.jpg"
    assert n_pages == 1
    assert [one.url.rsplit("/", 1)[1] for one in listed][:5] == [f"{i}.jpg" for i in range(5)]
    assert n_pages == 4


def test_the_whole_command_on_s3_with_workers(bucket: str, settings: ScanSettings, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "mai", "scan", f"{bucket}/set/", "--weights", str(settings.weights), "--workers",
               "2", "--no-cache", "--output", str(output)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr  # one file is empty
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["path"].rsplit("/", 1)[1], row["status"]) for row in rows] == WANTED


def test_other_file_systems_go_the_general_way(tmp_path: Path, folder: Path, settings: ScanSettings) -> None:
    """Those that are not asked page by page (gs://, abfs://, sftp:// ...): fsspec's own local one stands for them."""
    pytest.importorskip("fsspec", reason="fsspec is not installed (extra scale)")
    (folder / "sub").mkdir()
    (folder / "sub" / "z.jpg").write_bytes(JPEG)
    url = f"file://{folder}"
    rows = [("0.jpg", "ok"), ("1.jpg", "ok"), ("2.jpg", "ok"), ("nameless", "ok"), ("z.jpg", "ok")]
    assert told(find([url]), settings) == rows
    assert told(find([f"{url}/*.jpg"]), settings) == rows[:3]
    assert read(Found("x", url=f"{url}/0.jpg")).info.format == "JPEG"
