"""A scan and a person's corrections -> a set; any set -> folders, CSV, Parquet and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Ran, run_mai
from labelled_pictures import make_set
from small_network import make_weights

from mai.data.labelled import LabelledSet
from mai.data.sources import read_set

Mai = Callable[..., Ran]


@pytest.fixture
def mai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mai:
    return lambda *args: run_mai(monkeypatch, capsys, *args)


@pytest.fixture
def scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mai: Mai) -> Path:
    """A folder of pictures with a scan of it in three formats."""
    monkeypatch.chdir(tmp_path)
    make_set(tmp_path / "set", {"train": 4})
    weights = make_weights(tmp_path / "weights", "resnet")
    for name in ("scan.jsonl", "scan.csv", "scan.sqlite"):
        ran = mai(
            "scan", "set", "--detectors", "resnet", "--weights", weights, "--output", name, "--workers", "1"
        )
        assert ran.code == 0, ran.err
    return tmp_path


def test_corrections_make_a_set(scanned: Path, mai: Mai) -> None:
    right = (
        "path,label\nset/train/fake/0.png,fake\n./set/train/real/1.jpg,authentic\nset/train/real/2.jpg,skip\n"
    )
    (scanned / "right.csv").write_text(right)
    for scan in ("scan.jsonl", "scan.csv", "scan.sqlite"):
        ran = mai("data", "import", scan, "--corrections", "right.csv", "-o", "own/set.csv", "--force")
        assert ran.code == 0, ran.err
        assert "1 synthetic, 1 authentic pictures" in ran.out
        found = read_set(scanned / "own/set.csv")
        assert {(Path(r.file).relative_to(scanned).as_posix(), r.label) for r in found.rows} == {
            ("set/train/fake/0.png", 1),
            ("set/train/real/1.jpg", 0),
        }
    rows = [json.loads(line) for line in (scanned / "scan.jsonl").read_text().splitlines()]
    said = next(row["label"] for row in rows if row["path"].endswith("fake/0.png"))
    assert f"the scan said {said}, a person synthetic: 1" in ran.out


def test_corrections_from_a_spreadsheet(scanned: Path, mai: Mai) -> None:
    text = "Path;Label\r\nset/train/fake/0.png;fake\r\nset/train/real/1.jpg;authentic\r\n"
    (scanned / "right.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    ran = mai("data", "import", "scan.jsonl", "--corrections", "right.csv", "-o", "a.csv")
    assert (ran.code, "1 synthetic, 1 authentic pictures" in ran.out) == (0, True), ran.err
    (scanned / "right.csv").write_bytes(text.encode("utf-16"))
    ran = mai("data", "import", "scan.jsonl", "--corrections", "right.csv", "-o", "b.csv")
    assert (ran.code, "UTF-16" in ran.err) == (1, True), ran.err


def test_verdicts_are_taken_only_when_asked(scanned: Path, mai: Mai) -> None:
    (scanned / "right.csv").write_text("path,label\nset/train/fake/0.png,synthetic\n")
    words = ("data", "import", "scan.jsonl", "--corrections", "right.csv", "-o", "a.csv", "--force")
    assert "Only one class is there" in mai(*words).err
    rows = [json.loads(line) for line in (scanned / "scan.jsonl").read_text().splitlines()]
    decided = [row for row in rows if row["label"] in ("synthetic", "authentic")]
    assert decided
    ran = mai(*words, "--with-verdicts")
    assert ran.code == 0, ran.err
    labels = {Path(row.file).as_posix(): row.class_name for row in read_set("a.csv", one_class=True).rows}
    for row in decided:
        wanted = "synthetic" if row["path"].endswith("fake/0.png") else row["label"]
        assert labels[(scanned / row["path"]).as_posix()] == wanted
    assert len(labels) == len({*(row["path"] for row in decided), "set/train/fake/0.png"})


def test_what_cannot_be_trained_on_is_told(scanned: Path, mai: Mai) -> None:
    (scanned / "set/train/fake/0.png").write_bytes((scanned / "set/train/fake/1.jpg").read_bytes())
    (scanned / "set/train/real/1.jpg").unlink()
    (scanned / "c.csv").write_text(
        "path,label\nset/train/fake/0.png,1\nset/train/real/1.jpg,0\nset/train/real/2.jpg,0\nset/train/fake/2.jpg,1\n"
    )
    ran = mai("data", "import", "scan.jsonl", "--corrections", "c.csv", "-o", "a.csv")
    assert ran.code == 0, ran.err
    assert "1 file, it was changed since the scan; the first is set/train/fake/0.png" in ran.err
    assert "1 file, it is no file of its own (inside an archive or a table), or it is gone" in ran.err
    assert "1 synthetic, 1 authentic" in ran.out


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("path,label\nnowhere.jpg,fake\n", 2, "1 of 1 corrections are of no file of the scan: 'nowhere.jpg'"),
        ("path,label\nset/train/fake/0.png,maybe\n", 1, "c.csv, line 2: the label is 'maybe'"),
        (
            "path,label\nset/train/fake/0.png,1\nset/train/fake/0.png,0\n",
            1,
            "line 3: 'set/train/fake/0.png' was given",
        ),
        ("picture,what\na,b\n", 1, "needs the columns path and label; it has: picture, what"),
        ("path,label\n", 1, "holds no correction"),
        (
            "path,label\nset/train/fake/0.png,skip\n",
            1,
            "Nothing is left to train on: every correction says skip",
        ),
    ],
)
def test_wrong_corrections_are_told(scanned: Path, mai: Mai, text: str, code: int, sentence: str) -> None:
    (scanned / "c.csv").write_text(text)
    ran = mai("data", "import", "scan.jsonl", "--corrections", "c.csv", "-o", "a.csv")
    assert (ran.code, sentence in ran.err) == (code, True), ran.err
    assert not (scanned / "a.csv").exists()


def test_one_picture_under_two_names_has_one_label(scanned: Path, mai: Mai, tmp_path: Path) -> None:
    (scanned / "set/train/real/twin.png").write_bytes((scanned / "set/train/fake/0.png").read_bytes())
    weights = scanned / "weights" / "resnet_v9_9"
    weights = weights if weights.exists() else next(p.parent for p in scanned.rglob("config.json"))
    assert (
        mai("scan", "set", "--detectors", "resnet", "--weights", weights, "--output", "two.jsonl").code == 0
    )
    (scanned / "c.csv").write_text("path,label\nset/train/fake/0.png,1\nset/train/real/twin.png,0\n")
    ran = mai("data", "import", "two.jsonl", "--corrections", "c.csv", "-o", "a.csv")
    assert ran.code == 1
    assert "are the same picture with two labels" in ran.err


def rich_set(folder: Path) -> LabelledSet:
    """Pictures with everything that a set can say of them, two views of one picture among them."""
    make_set(folder / "raw", {"train": 3, "validation": 2})
    lines = ["file,label,split,source,generator,content,image,view"]
    for i, path in enumerate(sorted((folder / "raw").rglob("*.*"))):
        split, kind = path.parts[-3], path.parts[-2]
        label, generator = ("synthetic", "sdxl") if kind == "fake" else ("authentic", "")
        lines.append(
            f"raw/{path.relative_to(folder / 'raw').as_posix()},{label},{split},s{i % 2},{generator},photo,,"
        )
    lines.append("view.png,authentic,train,s9,,photo,one,crop")
    lines.append("view2.png,authentic,train,s9,,photo,one,whole")
    for name in ("view.png", "view2.png"):
        (folder / name).write_bytes((folder / "raw/train/real/0.png").read_bytes())
    (folder / "set.csv").write_text("\n".join(lines) + "\n")
    return read_set(folder / "set.csv")


def facts(labelled: LabelledSet) -> list[tuple[Any, ...]]:
    """What a set says, whatever its files are called."""
    import hashlib

    def digest(row: Any) -> str:
        return hashlib.sha256(row.data if row.stored is not None else Path(row.file).read_bytes()).hexdigest()

    shared = {row.image for row in labelled.rows if sum(r.image == row.image for r in labelled.rows) > 1}
    return sorted(
        (digest(r), r.label, r.split, r.source, r.generator, r.content, r.view, r.image in shared)
        for r in labelled.rows
    )  # type: ignore[type-var]


def test_every_form_is_read_back_as_the_same_set(
    tmp_path: Path, mai: Mai, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs the extra 'data'")
    from mai.data import exporting

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exporting, "SHARD_BYTES", 150_000)
    monkeypatch.setattr(exporting, "GROUP_BYTES", 60_000)
    before = rich_set(tmp_path)
    wanted = [tuple(str(v) for v in fact) for fact in facts(before)]
    for words in (("csv", "out/other.csv"), ("folders", "folders"), ("parquet", "parquet")):
        ran = mai("data", "export", "set.csv", "--to", words[0], "-o", words[1])
        assert ran.code == 0, ran.err
        assert f"{len(before.rows)} files" in ran.out
        after = read_set(words[1])
        assert [tuple(str(v) for v in fact) for fact in facts(after)] == wanted, words
    assert len(list((tmp_path / "parquet").glob("train-*.parquet"))) > 1, "in shards"
    # And on, from a table: the pictures come out of it again.
    assert mai("data", "export", "parquet", "--to", "folders", "-o", "again").code == 0
    assert [tuple(str(v) for v in fact) for fact in facts(read_set("again"))] == wanted
    assert {p.suffix for p in (tmp_path / "again").rglob("*.*") if p.suffix != ".csv"} == {".png", ".jpg"}
    refused = mai("data", "export", "parquet", "--to", "csv", "-o", "no.csv")
    assert (refused.code, "pictures inside a table" in refused.err) == (2, True)
    assert "exists" in mai("data", "export", "set.csv", "--to", "folders", "-o", "again").err


@pytest.mark.parametrize("unsplit", ["all", "some"])
def test_pictures_of_no_split_are_not_lost(tmp_path: Path, mai: Mai, unsplit: str) -> None:
    """They once took the name of the training split's shards, and overwrote them, or became training pictures."""
    pytest.importorskip("pyarrow", reason="Parquet needs the extra 'data'")
    rich_set(tmp_path)
    text = (tmp_path / "set.csv").read_text()
    for split in ("validation", "train") if unsplit == "all" else ("validation",):
        text = text.replace(f",{split},", ",,")
    (tmp_path / "set.csv").write_text(text)
    before = read_set(tmp_path / "set.csv")
    assert {row.split for row in before.rows} == ({None} if unsplit == "all" else {None, "train"})
    assert mai("data", "export", tmp_path / "set.csv", "--to", "parquet", "-o", tmp_path / "out").code == 0
    assert [str(fact) for fact in facts(read_set(tmp_path / "out"))] == [str(fact) for fact in facts(before)]


def test_hugging_face_reads_the_parquet(tmp_path: Path, mai: Mai) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'train'")
    rich_set(tmp_path)
    assert mai("data", "export", tmp_path / "set.csv", "--to", "parquet", "-o", tmp_path / "out").code == 0
    files = {name: [str(p) for p in (tmp_path / "out").glob(f"{name}-*")] for name in ("train", "validation")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "hf"))
    assert loaded["train"][0]["image"].size[0] > 100, "a picture, decoded by PIL"
    assert {row["label"] for row in loaded["validation"]} == {"synthetic", "authentic"}


def test_links_and_parts(tmp_path: Path, mai: Mai) -> None:
    rich_set(tmp_path)
    ran = mai("data", "export", tmp_path / "set.csv", "--to", "folders", "-o", tmp_path / "out", "--link",
              "--split", "validation")  # fmt: skip
    assert ran.code == 0, ran.err
    linked = [path for path in (tmp_path / "out").rglob("*.*") if path.suffix != ".csv"]
    assert len(linked) == 4
    assert all(path.stat().st_nlink == 2 for path in linked)


def test_links_of_symbolic_links_are_pictures(tmp_path: Path, mai: Mai) -> None:
    """A folder of relative symbolic links, as a hub's cache is one."""
    make_set(tmp_path / "raw", {"train": 2})
    for kind in ("real", "fake"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for path in (tmp_path / "raw/train" / kind).iterdir():
            (tmp_path / "set" / kind / path.name).symlink_to(f"../../raw/train/{kind}/{path.name}")
    out = tmp_path / "far/away/out"
    assert mai("data", "export", tmp_path / "set", "--to", "folders", "-o", out, "--link").code == 0
    made = [path for path in out.rglob("*.*") if path.suffix != ".csv"]
    assert len(made) == 4
    assert all(path.is_file() and not path.is_symlink() and path.stat().st_nlink == 2 for path in made)


def test_a_hub_that_cannot_be_reached_is_told(
    tmp_path: Path, mai: Mai, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the hub's library")
    rich_set(tmp_path)
    import huggingface_hub

    api = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api(endpoint="http://127.0.0.1:9", token="hf_none"))
    ran = mai("data", "export", tmp_path / "set.csv", "--to", "hub", "-o", "org/name")
    assert (ran.code, "'org/name' could not be written at the hub" in ran.err) == (2, True), ran.err
    assert (
        "is ORG/NAME, not 'name'"
        in mai("data", "export", tmp_path / "set.csv", "--to", "hub", "-o", "name").err
    )
