"""What sources mean, in what order, and that nothing strange on a disk stops the search."""

from __future__ import annotations

import io
import os
import pathlib
import subprocess
import sys
import tarfile
import textwrap
import tracemalloc
from pathlib import Path

import pytest
from pictures import encoded, scene

from mai.images.decode import Limits, decode, read
from mai.images.find import Found, find
from mai.images.shards import members, of_file

PNG = encoded(scene(8, 8), "PNG")


def names(*sources: object, root: Path, **options: bool) -> list[str]:
    """Paths found, relative to the root."""
    return [os.path.relpath(found.path, root) for found in find(sources, **options)]  # type: ignore[arg-type]


def status(found: Found) -> str | None:
    return found.error.status if found.error else None


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.png",
        "a.JPG",
        "sub/z.webp",
        "sub/deep/c.gif",
        "a/9.png",
        "a/10.png",
        ".hidden/h.png",
        ".x.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "picture-without-suffix").write_bytes(PNG)
    (tmp_path / "sub/film.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(99))
    return tmp_path


def test_folder_in_a_stable_order(tree: Path) -> None:
    expected = [
        "a/10.png",
        "a/9.png",
        "a.JPG",
        "b.png",
        "picture-without-suffix",
        "sub/deep/c.gif",
        "sub/z.webp",
    ]
    assert names(tree, root=tree) == expected
    assert names(str(tree), os.fsencode(tree), root=tree) == expected * 2
    assert all(not found.named for found in find([tree]))


def test_hidden_files_when_asked_or_named(tree: Path) -> None:
    assert names(tree, root=tree, hidden=True)[:2] == [".hidden/h.png", ".x.png"]
    assert names(tree / ".x.png", tree / ".hidden", root=tree) == [".x.png", ".hidden/h.png"]


def test_a_named_file_gets_a_row_whatever_it_is(tree: Path) -> None:
    (found,) = find([tree / "notes.txt"])
    assert found.named
    assert found.error is None
    (gone,) = find([tree / "gone.jpg"])
    assert gone.named
    assert status(gone) == "not_found"


def test_search_is_lazy(tree: Path) -> None:
    search = find([tree / "a", tree / "sub"])
    assert next(search).path.endswith("10.png")
    (tree / "sub" / "new.png").write_bytes(PNG)
    assert [Path(found.path).name for found in search] == ["9.png", "c.gif", "new.png", "z.webp"]


def test_links(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "o.png").write_bytes(PNG)
    (tree / "sub" / "up").symlink_to(tree)  # a loop
    (tree / "sub" / "self").symlink_to(tree / "sub" / "self")  # leads nowhere at all
    (tree / "sub" / "self.png").symlink_to(tree / "sub" / "self.png")
    (tree / "z-out").symlink_to(outside)
    (tree / "z-again").symlink_to(outside)
    (tree / "z-file.png").symlink_to(outside / "o.png")
    (tree / "z-broken.png").symlink_to(outside / "gone.png")
    found = names(tree, root=tree)
    assert found[-5:] == ["sub/self.png", "sub/z.webp", "z-again/o.png", "z-broken.png", "z-file.png"]
    assert len(found) == len(set(found)) == 11
    assert names(tree, root=tree, follow_links=False)[-1] == "sub/z.webp"


def test_folder_deeper_than_python_recurses(tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        Path("x.png").write_bytes(PNG)
    finally:
        os.chdir(before)
    # Deeper than the 4096 bytes of a path a system call takes would be; 2400 are not.
    found = [Path(one.path) for one in find([tmp_path])]
    assert [path.name for path in found] == ["x.png"]
    # pytest's own clearing up would go too deep as well.
    found[0].unlink()
    for n_levels in range(1200, 0, -1):
        Path(tmp_path, *["d"] * n_levels).rmdir()


def test_globs(tree: Path) -> None:
    assert names(f"{tree}/*.png", root=tree) == ["b.png"]
    assert names(f"{tree}/?/[0-9]*.png", root=tree) == ["a/10.png", "a/9.png"]
    assert names(f"{tree}/**/*.png", root=tree) == ["b.png", "a/10.png", "a/9.png"]
    assert names(f"{tree}/**/*.gif", root=tree) == ["sub/deep/c.gif"]
    assert sorted(names(f"{tree}/**", root=tree)) == sorted(names(tree, root=tree))
    assert sorted(names(f"{tree}/*", root=tree)) == sorted(names(tree, root=tree))
    assert all(found.named for found in find([f"{tree}/*.txt"]))
    (none,) = find([f"{tree}/*.bmp"])
    assert status(none) == "not_found"
    assert none.path.endswith("*.bmp")
    (tree / "odd[1].png").write_bytes(PNG)
    assert names(f"{tree}/odd[1].png", root=tree) == ["odd[1].png"]  # what exists is taken as it stands


def test_relative_globs(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert [found.path for found in find(["*.png", "s*/*.webp"])] == ["b.png", "sub/z.webp"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_list_in_a_file(tree: Path, end: str) -> None:
    paths = [str(tree / "b.png"), "", str(tree / "a"), str(tree / "gone.jpg"), str(tree / "notes.txt")]
    listing = tree / "list.txt"
    listing.write_bytes(end.join(paths).encode())
    found = list(find([f"@{listing}"]))
    assert [os.path.relpath(one.path, tree) for one in found] == [
        "b.png",
        "a/10.png",
        "a/9.png",
        "gone.jpg",
        "notes.txt",
    ]
    assert [status(one) for one in found] == [None, None, None, "not_found", None]


def test_paths_in_quotes_as_windows_copies_them(tree: Path) -> None:
    odd = tree / '"odd.png"'
    odd.write_bytes((tree / "b.png").read_bytes())
    (tree / "list.txt").write_text(f'"{tree / "b.png"}"\r\n"{tree / "gone.png"}"\r\n{odd}\r\n"\r\n')
    found = list(find([f"@{tree / 'list.txt'}"]))
    assert [one.path for one in found] == [str(tree / "b.png"), f'"{tree / "gone.png"}"', str(odd), '"']
    assert [status(one) for one in found] == [None, "not_found", None, "not_found"]


def test_lists_that_cannot_be_read(tree: Path) -> None:
    for source, expected in (
        ("@/gone/list.txt", "not_found"),
        (f"@{tree}", "not_a_file"),
        ("@/dev/zero", "not_a_file"),
    ):
        (found,) = find([source])
        assert status(found) == expected
    (tree / "junk.txt").write_bytes(b"x" * 200_000)
    assert [status(found) for found in find([f"@{tree}/junk.txt"])] == ["not_found"]


def test_lists_in_utf_16_say_how_to_save_them(tree: Path) -> None:
    """Excel's 'Unicode Text' and PowerShell's > write it."""
    for name in ("list.csv", "list.tsv", "list.txt"):
        (tree / name).write_bytes("file\tlabel\r\na.jpg\treal\r\n".encode("utf-16"))
        (found,) = find([str(tree / name) if name != "list.txt" else f"@{tree / name}"])
        assert found.error is not None
        assert (found.error.status, "PowerShell" in str(found.error)) == ("unsupported", True)
    with (tree / "list.txt").open("rb") as stream:
        command = [
            sys.executable,
            "-c",
            "from mai.images.find import find\nfor f in find(['-']): print(f.error)",
        ]
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, check=True)
    assert "The list on standard input cannot be read. It is UTF-16" in done.stdout


def test_list_on_stdin_streams(tree: Path) -> None:
    code = """
        from mai.images.find import find
        for found in find(["-"]):
            print(found.path, flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for name in ("b.png", "a.JPG"):
        child.stdin.write(f"{tree / name}\n")
        child.stdin.flush()
        assert child.stdout.readline() == f"{tree / name}\n"  # before the list has ended
    child.stdin.close()
    assert child.wait(10) == 0
    child.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a name be any bytes")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9.png", b"\xff.jpg", "日本.png".encode()):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(PNG)
    found = list(find([tmp_path]))
    assert [Path(one.path).name for one in found] == ["caf\\xe9.png", "日本.png", "\\xff.jpg"]
    for one in found:
        one.path.encode("utf-8")  # can be printed
        assert decode(read(one)).info.width == 8
    (named,) = find([folder + b"/\xff.jpg"])
    assert read(named).path.endswith("\\xff.jpg")


def test_pipes_and_devices_in_a_folder_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe.tar")
    code = """
        import sys
        from mai.images.find import find
        print([(found.path[-8:], bool(found.error)) for found in find(sys.argv[1:])])
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert child.stdout.strip() == "[('pipe.jpg', False), ('pipe.tar', True)]"


def test_unreadable_folder_is_a_row_and_the_search_goes_on(tree: Path) -> None:
    (tree / "a").chmod(0)
    tree.chmod(0o755)
    for folder in tree.parents:
        if "pytest" in folder.name and folder.stat().st_uid == os.geteuid():
            folder.chmod(0o755)
    code = """
        import os, sys
        from mai.images.find import find
        if os.geteuid() == 0:
            os.setgid(65534); os.setuid(65534)
        for found in find(sys.argv[1:]):
            print(os.path.relpath(found.path, sys.argv[1]), found.error.status if found.error else "ok")
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tree)], capture_output=True, text=True, check=False
    )
    (tree / "a").chmod(0o755)
    lines = child.stdout.splitlines()
    assert lines[:3] == ["a not_readable", "a.JPG ok", "b.png ok"], child.stderr
    assert len(lines) == 6


# --- shards ----------------------------------------------------------------------------------------------------


def tar_of(path: Path, entries: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


ENTRIES = {
    "0001.png": PNG,
    "0001.json": b"{}",
    "0002": PNG,
    "._0003.jpg": b"resource fork",
    "dir/0004.jpg": encoded(scene(), "JPEG"),
    "0005.png": b"",
}


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz")])
def test_tar(tmp_path: Path, suffix: str, mode: str) -> None:
    shard = tar_of(tmp_path / f"shard{suffix}", ENTRIES, mode)
    found = list(find([shard]))
    assert [one.path.removeprefix(f"{shard}::") for one in found] == [
        "0001.png",
        "0002",
        "dir/0004.jpg",
        "0005.png",
    ]
    assert [decode(read(one)).info.width for one in found[:3]] == [8, 8, 48]
    assert all(one.file is None for one in found)
    assert [one.path for one in find([tmp_path])] == [one.path for one in found]  # met in a folder


def test_large_member_is_told_and_not_read(tmp_path: Path) -> None:
    shard = tar_of(tmp_path / "s.tgz", {"big.png": bytes(40 * 2**20), "next.png": PNG}, "w:gz")
    tracemalloc.start()
    found = list(find([shard], max_bytes=2**20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [status(one) for one in found] == ["too_large", None]
    assert peak < 8 * 2**20
    assert read(found[1], Limits()).info.width == 8


@pytest.mark.parametrize("at", [9000, 10240 + 300, -1])
def test_tar_that_breaks_off(tmp_path: Path, at: int) -> None:
    whole = tar_of(tmp_path / "whole.tar", {f"{n}.png": PNG for n in range(12)}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:at] if at > 0 else whole[:9000] + b"damage" * 99 + whole[9594:])
    (tmp_path / "later.png").write_bytes(PNG)
    found = list(find([tmp_path / "cut.tar", tmp_path / "later.png"]))
    assert [status(one) for one in found[-2:]] == ["truncated", None]
    assert found[-2].path == str(tmp_path / "cut.tar")
    assert len(found) > 4


@pytest.mark.parametrize("content", [b"no archive at all" * 99, b"\x1f\x8b\x08junk" * 9, bytes(100)])
@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".parquet"])
def test_shards_that_are_none(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    (found,) = find([path])
    assert status(found) == "not_an_image"
    path.write_bytes(b"")
    (found,) = find([path])
    assert status(found) == "empty"


def test_tar_header_that_claims_a_huge_name(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type = tarfile.GNUTYPE_LONGNAME
    entry.size = 6 * 2**30
    (tmp_path / "bomb.tar").write_bytes(entry.tobuf() + bytes(4096))
    (found,) = find([tmp_path / "bomb.tar"])
    assert status(found) == "not_an_image"
    assert "6,442,450,944" in str(found.error)


def test_memory_stays_flat_over_a_long_tar(tmp_path: Path) -> None:
    shard = tar_of(tmp_path / "long.tar", {f"{n:06}.png": PNG for n in range(4000)})
    n_members = n_held = 0
    tracemalloc.start()
    for n_members, _ in enumerate(members(of_file(shard)), 1):
        if n_members == 4000:
            # pathlib interns names: Python's one table of them, which may grow just now, is not the shard's.
            ours = tracemalloc.Filter(inclusive=False, filename_pattern=pathlib.__file__)
            held = tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
            n_held = sum(kind.size for kind in held)
    tracemalloc.stop()
    assert n_members == 4000
    assert 0 < n_held < 2**19


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra data)")
    from pyarrow import parquet

    rows = [
        {"bytes": PNG, "path": "a.png"},
        None,
        {"bytes": None, "path": "b.png"},
        {"bytes": b"text", "path": None},
    ]
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    table = arrow.table({"label": [0, 1, 0, 1], "blob": [b"x"] * 4, "image": arrow.array(rows, kind)})
    parquet.write_table(table, tmp_path / "s.parquet", row_group_size=2)
    found = list(find([tmp_path]))
    assert [one.path.rsplit("::")[1] for one in found] == ["0", "1", "2", "3"]
    assert [status(one) for one in found] == [None, "empty", "not_found", None]
    assert decode(read(found[0])).info.width == 8
    large = list(find([tmp_path], max_bytes=10))
    assert [status(one) for one in large] == ["too_large", "empty", "not_found", None]


def test_parquet_with_a_binary_column_and_without(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra data)")
    from pyarrow import parquet

    table = arrow.table({"hash": [b"1", b"2"], "jpg": arrow.array([PNG, PNG], arrow.large_binary())})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert [read(one).info.format for one in find([tmp_path / "a.parquet"])] == ["PNG", "PNG"]
    parquet.write_table(arrow.table({"n": [1], "s": ["x"]}), tmp_path / "b.parquet")
    (found,) = find([tmp_path / "b.parquet"])
    assert status(found) == "not_an_image"
    assert "Columns: n, s" in str(found.error)


def test_parquet_damaged_inside(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra data)")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    pictures = [encoded(scene(9 + n, 9), "PNG") for n in range(40)]
    parquet.write_table(arrow.table({"image": pictures}), path, row_group_size=10, use_dictionary=False)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = os.urandom(400)
    path.write_bytes(bytes(data))
    found = list(find([path, tmp_path / "gone.png"]))
    assert status(found[-1]) == "not_found"
    assert 0 < len(found) <= 42


def test_parquet_without_the_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (found,) = find([tmp_path / "a.parquet"])
    assert status(found) == "unsupported"
    assert "pip install 'mai-identifier[data]'" in str(found.error)


def test_finding_needs_neither_numpy_nor_pillow() -> None:
    code = "import sys, mai.images.find; print([m for m in ('numpy', 'PIL', 'pyarrow') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_a_semicolon_in_the_first_path_of_a_list_of_one_column(tree: Path) -> None:
    (tree / "a;b.png").write_bytes((tree / "b.png").read_bytes())
    (tree / "list.csv").write_text(f"{tree / 'a;b.png'}\n{tree / 'b.png'}\n")
    assert [status(one) for one in find([str(tree / "list.csv")])] == [None, None]
    (tree / "list.csv").write_text(f"file;label\n{tree / 'b.png'};real\n")
    assert [one.path for one in find([str(tree / "list.csv")])] == [str(tree / "b.png")]
