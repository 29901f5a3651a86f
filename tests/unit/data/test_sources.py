"""Labelled sets are read from real files of every kind, and refused with a sentence that names the place."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mai.data.sources import Row, read_set
from mai.errors import DataError, UsageError


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (32, 24), **options: object) -> Path:
    """A file of drawn blocks, never the same for two seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def encoded(seed: int, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    blocks = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(blocks).save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize(("ai", "nature"), [("fake", "real"), ("1_fake", "0_real"), ("AI", "Nature")])
def test_folder_names_give_labels_at_any_depth(tmp_path: Path, ai: str, nature: str) -> None:
    picture(tmp_path / "set" / "a" / ai / "deep" / "x.png")
    picture(tmp_path / "set" / nature / "y.jpg", 1)
    picture(tmp_path / "set" / "neither" / "z.jpg", 2)
    (tmp_path / "set" / nature / "notes.txt").write_text("no picture")
    found = read_set(tmp_path / "set")
    assert [(Path(row.file).name, row.label) for row in found.rows] == (
        [("y.jpg", 0), ("x.png", 1)] if nature < "a" else [("x.png", 1), ("y.jpg", 0)]
    )
    assert found.counts() == {"files": 2, "images": 2, "synthetic": 1, "authentic": 1}


def test_one_level_above_the_label_names_the_generator_more_do_not(tmp_path: Path) -> None:
    picture(tmp_path / "sdxl" / "1_fake" / "a.png")
    picture(tmp_path / "sdxl" / "0_real" / "b.png", 1)
    picture(tmp_path / "val" / "biggan" / "1_fake" / "c.png", 2)
    picture(tmp_path / "progan" / "car" / "1_fake" / "d.png", 3)
    facts = {Path(row.file).stem: (row.generator, row.split) for row in read_set(tmp_path).rows}
    assert facts == {
        "a": ("sdxl", None),
        "b": (None, None),
        "c": ("biggan", "validation"),
        "d": (None, None),
    }


def test_a_picture_under_two_labels_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "real" / "fake" / "a.png")
    with pytest.raises(DataError, match="two labels: real and fake"):
        read_set(tmp_path)


def test_folder_links_are_read_once_and_hidden_files_not(tmp_path: Path) -> None:
    picture(tmp_path / "real" / "a.png")
    picture(tmp_path / "fake" / "b.png", 1)
    picture(tmp_path / "fake" / ".hidden.png", 2)
    (tmp_path / "fake" / "loop").symlink_to(tmp_path / "fake", target_is_directory=True)
    assert len(read_set(tmp_path).rows) == 2


def test_csv_with_all_columns_and_words(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "files" / f"{i}.png", i)
    (tmp_path / "manifest.csv").write_text(
        "file,label,split,source,generator,content,image,view\n"
        "files/0.png,FAKE,val,a,sdxl,photo,one,crop\n"
        "files/1.png,1,val,a,sdxl,photo,one,whole\n"
        "files/2.png,authentic,,b,,,,\n"
    )
    found = read_set(tmp_path)
    whole = str(tmp_path / "files" / "1.png")
    assert found.rows[1] == Row(whole, 1, "validation", "a", "sdxl", "photo", "one", "whole")
    assert found.rows[2].image == found.rows[2].file
    assert found.counts() == {"files": 3, "images": 2, "synthetic": 1, "authentic": 1}
    assert found.counts_by("view")["whole"] == {"files": 1, "images": 1, "synthetic": 1, "authentic": 0}
    assert len(found.select(split="validation", views=["crop", None]).rows) == 1
    assert read_set(tmp_path / "manifest.csv").fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,lable\na.png,real\n", "no column 'label'. The nearest is 'lable'"),
        ("fiel,label\na.png,real\n", "no column 'file'. The nearest is 'fiel'"),
        ("file,label\na.png,real\nb.png,maybe\n", "line 3: the label is 'maybe'"),
        ("file,label\na.png,real\nnone.png,fake\n", "line 3: there is no file 'none.png'"),
        ("file,label\na.png,real\n,fake\n", "line 3: the column 'file' is empty"),
        ("file,label\na.png,real\nb.png,real\n", "no synthetic picture among 2"),
        ("file,label\na.png,real\na.png,real\n", "twice"),
        ("file,label,split\na.png,real,later\nb.png,fake,\n", "line 2: the split is 'later'"),
        ("file,label\na.png,real,more\nb.png,fake\n", "line 2 has not the 2 cells"),
        ("file,label,image\na.png,real,x\nb.png,fake,x\n", "'x' stands with two labels"),
        ("file,label\n", "holds no labelled picture"),
        ("", "no column 'file'"),
    ],
)
def test_a_csv_that_cannot_be_used_says_where(tmp_path: Path, text: str, message: str) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", 1)
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        read_set(tmp_path / "set.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_as_a_spreadsheet_saves_it(tmp_path: Path, delimiter: str) -> None:
    """A mark at the start, names with capitals, the delimiter of the country, Windows' line ends."""
    picture(tmp_path / "a, b.png")
    picture(tmp_path / "c.png", 3)
    lines = [
        delimiter.join(cells) for cells in (("File", "Label "), ('"a, b.png"', "Real"), ("c.png", "fake"))
    ]
    (tmp_path / "set.csv").write_bytes("\ufeff".encode() + "\r\n".join([*lines, ""]).encode())
    assert [row.label for row in read_set(tmp_path / "set.csv").rows] == [0, 1]


def test_a_csv_of_another_machine_says_what_to_change(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "set.csv").write_text("file,label\nin\\a.png,real\n")
    if os.sep == "/":
        with pytest.raises(DataError, match=r"Write paths with / in place of"):
            read_set(tmp_path / "set.csv")
    (tmp_path / "set.csv").write_bytes("file\tlabel\r\nin/a.png\treal\r\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"UTF-16 text.*'CSV UTF-8' in Excel"):
        read_set(tmp_path / "set.csv")


def test_what_is_no_set_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no data at"):
        read_set(tmp_path / "none")
    with pytest.raises(UsageError, match="no labelled set"):
        read_set(picture(tmp_path / "a.png"))
    with pytest.raises(DataError, match="1 pictures lie in other folders"):
        read_set(tmp_path)


def test_the_fingerprint_is_that_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    picture(tmp_path / "one" / "real" / "a.png")
    picture(tmp_path / "one" / "fake" / "b.png", 1)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first = read_set(tmp_path / "one").fingerprint
    assert read_set(tmp_path / "two").fingerprint == first
    with (tmp_path / "two" / "fake" / "b.png").open("ab") as file:
        file.write(b"\0")
    assert read_set(tmp_path / "two").fingerprint != first


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    picture(tmp_path / "real" / "a.png")
    (tmp_path / "fake").mkdir()
    raw = os.fsencode(tmp_path / "fake")
    shutil.copy(tmp_path / "real" / "a.png", raw + b"/\xff.png")
    found = read_set(tmp_path)
    assert found.counts()["files"] == 2 and len(found.fingerprint) == 64
    assert Path(found.rows[0].file).read_bytes() == (tmp_path / "real" / "a.png").read_bytes()


def test_parquet_pictures_are_read_when_asked_for(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [encoded(i) for i in range(5)]
    table = pa.table(
        {
            "image": [{"bytes": data, "path": None} for data in pictures],
            "label": ["real", "fake", "real", "fake", "real"],
            "source": list("abcde"),
        }
    )
    pq.write_table(table, tmp_path / "validation-00000-of-00001.parquet", row_group_size=2)
    found = read_set(tmp_path)
    assert [row.data for row in found.rows] == pictures
    assert [row.n_bytes() for row in found.rows] == [len(data) for data in pictures]
    assert [row.label for row in found.rows] == [0, 1, 0, 1, 0]
    assert {row.split for row in found.rows} == {"validation"}
    assert found.rows[3].file.endswith("validation-00000-of-00001.parquet::3")
    assert (
        len(pickle.dumps(found.rows[3])) < 600
        and pickle.loads(pickle.dumps(found.rows[3])).data == pictures[3]
    )


def test_parquet_with_files_beside_it_and_damaged_parquet(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = [str(picture(tmp_path / f"{i}.png", i).name) for i in range(2)]
    pq.write_table(pa.table({"file": files, "label": [0, 1]}), tmp_path / "set.parquet")
    rows = read_set(tmp_path / "set.parquet").rows
    assert [(row.file, row.label) for row in rows] == [(str(tmp_path / f), i) for i, f in enumerate(files)]
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "set.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match=r"bad\.parquet cannot be read as Parquet"):
        read_set(tmp_path / "bad.parquet")


def test_pairs_become_two_rows_of_one_source(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "id": ["p0", "p1"],
            "authentic": [encoded(0, "JPEG"), encoded(1, "JPEG")],
            "synthetic": [encoded(2), encoded(3)],
            "generator": ["sdxl", "flux.1"],
        }
    )
    pq.write_table(table, tmp_path / "pairs.parquet")
    rows = read_set(tmp_path / "pairs.parquet").rows
    assert [(row.label, row.source, row.generator) for row in rows] == [
        (0, "p0", None),
        (1, "p0", "sdxl"),
        (0, "p1", None),
        (1, "p1", "flux.1"),
    ]
    assert rows[3].data == encoded(3) and len({row.image for row in rows}) == 4


def test_hugging_face_class_names_decide_what_a_number_means(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["fake", "real"])}
    )
    pictures = [encoded(i) for i in range(4)]
    part = datasets.Dataset.from_dict(
        {"image": [{"bytes": data, "path": None} for data in pictures], "label": [0, 1, 0, 1]}, features
    )
    datasets.DatasetDict({"train": part, "test": part.select([1, 2])}).save_to_disk(str(tmp_path / "saved"))
    part.to_parquet(str(tmp_path / "one.parquet"))
    rows = read_set(tmp_path / "saved").rows
    assert [row.label for row in rows] == [1, 0, 1, 0, 0, 1]
    assert [row.split for row in rows] == ["train"] * 4 + ["test"] * 2
    assert [row.data for row in rows] == [*pictures, pictures[1], pictures[2]]
    assert rows[0].n_bytes() == len(pictures[0])
    assert [row.label for row in read_set(tmp_path / "one.parquet").rows] == [1, 0, 1, 0]
