"""A labelled set -> folders, CSV, Parquet or a hub data set; each is read back as the same set (docs/data.md)."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mai.data.labelled import LabelledSet, Row
from mai.errors import DataError, MaiError, UsageError, require
from mai.images.kinds import HEAD_BYTES, of_bytes

COLUMNS = ("file", "label", "split", "source", "generator", "content", "image", "view")
SHARD_BYTES = 400_000_000
GROUP_BYTES = 32_000_000
FORMS = ("folders", "csv", "parquet", "hub")


def csv_text(labelled: LabelledSet, folder: Path, files: Sequence[str] | None = None) -> str:
    """The set as CSV, files relative to `folder` where they lie below it.

    Args:
        labelled: pictures in files.
        folder: where the CSV will lie.
        files: names in place of the rows' own files.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, row in enumerate(labelled.rows):
        path = Path(row.file)
        file = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else row.file
        facts = (row.split, row.source, row.generator, row.content, identity(row, labelled), row.view)
        name = files[number] if files is not None else file
        writer.writerow((name, row.class_name, *(value or "" for value in facts)))
    return text.getvalue()


def identity(row: Row, labelled: LabelledSet) -> str:
    """The name that views of one picture share, empty where the file is the picture."""
    return "" if row.image == row.file else labelled.relative(row.image)


def to_csv(labelled: LabelledSet, output: Path) -> None:
    """One CSV that names the files where they are.

    Raises:
        UsageError: pictures lie inside a table.
    """
    if any(row.stored is not None for row in labelled.rows):
        raise UsageError(
            f"'{labelled.name}' holds pictures inside a table; a CSV can only name files. Export it with --to folders."
        )
    if output.exists():
        raise UsageError(f"'{output}' exists. Give another --output.")
    output.parent.mkdir(parents=True, exist_ok=True)
    text = csv_text(labelled, Path(os.path.abspath(output)).parent)  # noqa: PTH100
    _whole(output, text.encode("utf-8", "surrogateescape"))


def to_folders(labelled: LabelledSet, output: Path, *, link: bool = False) -> None:
    """`output/<split>/<label>/<number>-<name>` and a manifest.csv with all that the set says.

    Args:
        labelled: any set.
        output: folder to make; it must not be there.
        link: hard links in place of copies, where the file system allows it.

    Raises:
        DataError: a picture cannot be read.
    """
    making = _place(output)
    names = []
    for number, row in enumerate(labelled.rows):
        name = f"{row.split or 'all'}/{row.class_name}/{number:06d}-{_stem(row)}"
        place = making / name
        place.parent.mkdir(parents=True, exist_ok=True)
        _put(row, place, link)
        names.append(name)
    _whole(making / "manifest.csv", csv_text(labelled, output, names).encode("utf-8", "surrogateescape"))
    making.rename(output)


def _put(row: Row, place: Path, link: bool) -> None:
    try:
        if row.stored is not None:
            place.write_bytes(_bytes(row))
            return
        if link:
            try:
                os.link(os.path.realpath(row.file), place)  # not the symbolic link: it may be relative
                return
            except OSError:  # another file system: copy
                pass
        shutil.copyfile(row.file, place)
    except OSError as error:
        raise DataError(f"'{row.file}' cannot be copied: {error.strerror}.") from error


def _bytes(row: Row) -> bytes:
    try:
        return row.data if row.stored is not None and row.data is not None else Path(row.file).read_bytes()
    except OSError as error:
        raise DataError(f"'{row.file}' cannot be read: {error.strerror}.") from error


def _stem(row: Row) -> str:
    """A file name that every system takes, with an ending that fits the picture."""
    plain = row.file.rsplit("::", 1)[0] if row.stored is not None else row.file
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in Path(plain).name)[-80:]
    if row.stored is None:
        return kept
    return f"{Path(kept).stem}{_SUFFIXES.get(of_bytes(_bytes(row)[:HEAD_BYTES]) or '', '.img')}"


_SUFFIXES = {
    "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "AVIF": ".avif", "GIF": ".gif", "TIFF": ".tif", "BMP": ".bmp",
    "JPEG2000": ".jp2", "HEIF": ".heic",
}  # fmt: skip


def to_parquet(labelled: LabelledSet, output: Path) -> None:
    """Shards `output/<split>-00000-of-00003.parquet` with the pictures inside, as Hugging Face writes them.

    Rows of no split are in `all-...`: a reader takes a name that is a split for their split.

    Raises:
        DataError: a picture cannot be read.
        MissingExtraError: pyarrow is not installed.
    """
    pa = require("pyarrow", "data", "Writing Parquet")
    parquet = require("pyarrow.parquet", "data", "Writing Parquet")
    making = _place(output)
    schema = _schema(pa)
    for split in dict.fromkeys(row.split for row in labelled.rows):
        rows = [row for row in labelled.rows if row.split == split]
        shards = list(_shards(rows))
        for number, shard in enumerate(shards):
            name = f"{split or 'all'}-{number:05d}-of-{len(shards):05d}.parquet"
            with parquet.ParquetWriter(making / name, schema) as writer:
                for group in _cut(shard, GROUP_BYTES):
                    records = [_record(row, labelled) for row in group]
                    writer.write_table(pa.Table.from_pylist(records, schema))
    making.rename(output)


def _schema(pa: Any) -> Any:
    """Columns, and what Hugging Face reads of them: a picture is a picture."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = [name for name in COLUMNS if name not in ("file", "image")]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features |= {name: {"dtype": "string", "_type": "Value"} for name in (*texts, "id")}
    told = json.dumps({"info": {"features": features}})
    fields = [("image", picture), *((name, pa.string()) for name in (*texts, "id"))]
    return pa.schema(fields, metadata={"huggingface": told})


def _record(row: Row, labelled: LabelledSet) -> dict[str, Any]:
    own = {"bytes": _bytes(row), "path": _stem(row)}
    facts = {name: getattr(row, name) for name in ("split", "source", "generator", "content", "view")}
    return {"image": own, "label": row.class_name, **facts, "id": identity(row, labelled) or None}


def _shards(rows: Sequence[Row]) -> Iterator[list[Row]]:
    yield from _cut(rows, SHARD_BYTES)


def _cut(rows: Sequence[Row], most: int) -> Iterator[list[Row]]:
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += max(row.n_bytes(), 0)
        if size >= most:
            yield part
            part, size = [], 0
    if part:
        yield part


def to_hub(labelled: LabelledSet, repo: str, *, public: bool = False) -> str:
    """Upload a set as Parquet to a data set repository of the hub, private unless asked; returns its address.

    Raises:
        UsageError: the hub cannot be reached, or refuses.
    """
    import tempfile

    hub = require("huggingface_hub", "train", "Uploading to the hub")
    if repo.count("/") != 1:
        raise UsageError(f"A data set of the hub is ORG/NAME, not '{repo}'.")
    with tempfile.TemporaryDirectory(prefix="mai-export-") as temporary:
        folder = Path(temporary) / "data"
        to_parquet(labelled, folder)
        try:
            api = hub.HfApi()
            api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
            api.upload_folder(folder_path=folder, path_in_repo="data", repo_id=repo, repo_type="dataset")
        except MaiError:
            raise
        except (
            Exception
        ) as error:  # no network, no login, no right to write: the hub's library raises many kinds
            lines = str(error).strip().splitlines()
            raise UsageError(
                f"'{repo}' could not be written at the hub: {lines[0] if lines else type(error).__name__}. Log in with "
                "`hf auth login`, or export with --to parquet and upload the folder yourself."
            ) from error
    return f"https://huggingface.co/datasets/{repo}"


def _place(output: Path) -> Path:
    """A folder beside the one wanted, renamed when it is whole.

    Raises:
        UsageError: the output is there already.
    """
    if output.exists():
        raise UsageError(f"'{output}' exists. Give another --output.")
    output.parent.mkdir(parents=True, exist_ok=True)
    making = output.with_name(f".{output.name}.part")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    return making


def _whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)
