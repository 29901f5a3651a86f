"""The Parquet shards of a set of pairs: their columns, how they are written, how they are read again.

    DS/pairs.json generate.json            what the run was started with
    DS/plan.parquet                        the authentic images, ids, what is left out and why
    DS/captions/captions-00000-of-00012.parquet
    DS/data/pairs-00000-of-00012.parquet   the pairs; the only files that a reader needs
    DS/work/                               leases, unfinished parts; may be removed when the run is done

The pictures are structs {bytes, path}, and the schema carries the metadata of Hugging Face, so `load_dataset("DS")`
gives Image columns.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mai.errors import DataError, MaiError, UsageError, require
from mai.pairs.settings import Settings

Row = dict[str, Any]
"""A row of captions or pairs, by column."""

IMAGES = ("authentic", "synthetic", "mask")
GROUP_BYTES = 64 * 2**20
"""Of a row group, at most; the hub's viewer takes 300 MB."""

_GENERATOR = {
    "name": "string", "id": "string", "revision": "string", "seed": "int64", "steps": "int32", "guidance": "float32",
    "guidance_argument": "string", "width": "int32", "height": "int32", "strength": "float32", "dtype": "string",
    "load": "string", "licence": "string", "note": "string", "versions": "string",
}  # fmt: skip
_CAPTIONER = {"name": "string", "revision": "string", "note": "string"}
_ORIGINAL = {"file": "string", "sha256": "string", "format": "string", "width": "int32", "height": "int32"}
_CROP = {"left": "int32", "top": "int32", "right": "int32", "bottom": "int32"}


_FIELDS: dict[str, str | dict[str, str]] = {
    "id": "string", "status": "string", "message": "string", "kind": "string",
    "authentic": "image", "synthetic": "image", "mask": "image",
    "caption": "string", "captioner": _CAPTIONER, "generator": _GENERATOR,
    "source": "string", "split": "string", "content": "string", "original": _ORIGINAL, "crop": _CROP,
    "cost": "float32", "seconds": "float32",
}  # fmt: skip


def _feature(kind: str | dict[str, str]) -> dict[str, Any]:
    """A column as Hugging Face describes it."""
    if isinstance(kind, dict):
        return {name: _feature(inner) for name, inner in kind.items()}
    return {"_type": "Image"} if kind == "image" else {"dtype": kind, "_type": "Value"}


@cache
def pair_schema() -> Any:
    """The Arrow schema of the pairs, with the metadata that Hugging Face's `Features.arrow_schema` has.

    Written out here, as importing `datasets` takes seconds of every worker; a test holds the two equal.
    """
    pa = require("pyarrow", "pairs", "Storing pairs")
    kinds = {
        "string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32(),
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    }  # fmt: skip

    def arrow(kind: str | dict[str, str]) -> Any:
        if isinstance(kind, dict):
            return pa.struct([(name, kinds[inner]) for name, inner in kind.items()])
        return kinds[kind]

    told = {"info": {"features": {name: _feature(kind) for name, kind in _FIELDS.items()}}}
    fields = [(name, arrow(kind)) for name, kind in _FIELDS.items()]
    return pa.schema(fields, metadata={"huggingface": json.dumps(told)})


@cache
def caption_schema() -> Any:
    """The Arrow schema of the captions."""
    pa = require("pyarrow", "pairs", "Storing captions")
    text = pa.string()
    return pa.schema(
        [
            ("id", text), ("status", text), ("message", text), ("caption", text),
            ("captioner", pa.struct([(name, pa.string()) for name in _CAPTIONER])), ("seconds", pa.float32()),
        ]
    )  # fmt: skip


def caption_part(folder: Path, shard: int, n_shards: int) -> Path:
    """The final name of a part of the first pass."""
    return folder / "captions" / f"captions-{shard:05d}-of-{n_shards:05d}.parquet"


def pair_part(folder: Path, shard: int, n_shards: int) -> Path:
    """The final name of a part of the second pass."""
    return folder / "data" / f"pairs-{shard:05d}-of-{n_shards:05d}.parquet"


def write_rows(path: Path, rows: Sequence[dict[str, Any]], schema: Any) -> None:
    """Write rows as Parquet; the counts of statuses stand in the file's metadata, under `mai`."""
    pa = require("pyarrow", "pairs", "Storing pairs")
    parquet = require("pyarrow.parquet", "pairs", "Storing pairs")
    counts = {
        "statuses": dict(Counter(row["status"] for row in rows)),
        "cost": round(sum(row.get("cost") or 0.0 for row in rows), 6),
        "seconds": round(sum(row.get("seconds") or 0.0 for row in rows), 3),
    }
    schema = schema.with_metadata({**(schema.metadata or {}), b"mai": json.dumps(counts).encode()})
    compression = _compression(schema)
    # A dictionary and the least and greatest of columns of pictures cost 30 ms a row of 1 MP, and nobody asks for them.
    told = [name for name, how in compression.items() if how != "NONE"]
    with parquet.ParquetWriter(
        path, schema, compression=compression, use_dictionary=told, write_statistics=told
    ) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _compression(schema: Any) -> dict[str, str]:
    """PNG does not get smaller; all else does."""
    found = {}
    for name in schema.names:
        kind = schema.field(name).type
        leaves = (
            [f"{name}.{kind.field(i).name}" for i in range(kind.num_fields)] if kind.num_fields else [name]
        )
        for leaf in leaves:
            found[leaf] = "NONE" if leaf.endswith(".bytes") else "ZSTD"
    return found


def _groups(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len((row.get(name) or {}).get("bytes") or b"") for name in IMAGES)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def picture(data: bytes | None, name: str) -> dict[str, Any] | None:
    """A picture as Hugging Face keeps it."""
    return None if data is None else {"bytes": data, "path": name}


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows of a part.

    Raises:
        DataError: it is damaged.
    """
    parquet = require("pyarrow.parquet", "pairs", "Reading pairs")
    pa = require("pyarrow", "pairs", "Reading pairs")
    try:
        with parquet.ParquetFile(path) as opened:
            rows: list[dict[str, Any]] = opened.read(columns=list(columns) if columns else None).to_pylist()
            return rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def taken_over(partial: Path | None) -> dict[str, Row]:
    """Rows of an interrupted try, by id."""
    if partial is None:
        return {}
    try:
        return {row["id"]: row for row in read_rows(partial)}
    except MaiError:
        return {}


def read_part(path: Path) -> list[dict[str, Any]]:
    """All rows of a part of the pairs.

    Raises:
        DataError: it is damaged, or its columns are not those of a set of pairs.
    """
    parquet = require("pyarrow.parquet", "pairs", "Reading pairs")
    pa = require("pyarrow", "pairs", "Reading pairs")
    try:
        found = parquet.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    for wanted in pair_schema():
        place = found.get_field_index(wanted.name)
        if place < 0:
            raise DataError(f"{path} is no part of a set of pairs: it has no column '{wanted.name}'.")
        if problem := _misfit(wanted.name, found.field(place).type, wanted.type):
            raise DataError(
                f"{path} was not made by mai pairs: {problem}. As a labelled set it may still serve: mai data audit"
            )
    return read_rows(path)


def _misfit(column: str, found: Any, wanted: Any) -> str | None:
    """What another program keeps in a column of that name, where it is not what stands here; None if it is."""
    told, needed = _kind(found), _kind(wanted)
    if told == "nothing":
        return None
    if told != needed:
        inner = ", ".join(wanted.field(i).name for i in range(wanted.num_fields))
        return f"its column '{column}' holds {told}, not {needed}" + (f" of {inner}" if inner else "")
    for i in range(wanted.num_fields):
        name = wanted.field(i).name
        place = found.get_field_index(name)
        if place < 0:
            return f"its column '{column}' has no '{name}'"
        if problem := _misfit(f"{column}.{name}", found.field(place).type, wanted.field(i).type):
            return problem
    return None


def _kind(kind: Any) -> str:
    """What a column holds, in a word that does not depend on its width."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_integer(kind) or types.is_floating(kind):
        return "numbers"
    word = str(kind).partition("<")[0].removeprefix("large_").removesuffix("_view")
    return {"null": "nothing", "struct": "a struct", "string": "text", "binary": "bytes"}.get(word, str(kind))


def is_recorded(row: dict[str, Any]) -> bool:
    """True if a pair's row says which generator made it, with which seed and in which size."""
    told = row["generator"] or {}  # a struct: read_part has seen to it
    return all(told.get(name) is not None for name in ("name", "seed", "width", "height"))


def counts_of(path: Path) -> dict[str, Any]:
    """What write_rows noted in a part: statuses, cost, seconds. Reads the file's end only.

    Raises:
        DataError: it is damaged, or not of this kind.
    """
    parquet = require("pyarrow.parquet", "pairs", "Reading pairs")
    pa = require("pyarrow", "pairs", "Reading pairs")
    try:
        found: dict[str, Any] = json.loads(parquet.read_schema(path).metadata[b"mai"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} was not made by mai pairs: it does not say how many rows have which status."
        ) from error
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    return found


def parts(folder: Path) -> list[Path]:
    """The finished parts of the pairs, in order.

    Raises:
        UsageError: there are none.
    """
    found = sorted((folder / "data").glob("pairs-*.parquet"))
    if not found:
        raise UsageError(f"'{folder}' holds no finished pairs yet. Run: mai pairs status '{folder}'")
    return found


def rows_of(folder: Path, only_pairs: bool = True) -> Iterator[dict[str, Any]]:
    """All rows, a part at a time in memory.

    Args:
        folder: of the pairs.
        only_pairs: leave out rows that did not become a pair.

    Raises:
        DataError: a part is damaged or of another kind, or a pair does not say what made it.
    """
    for part in parts(folder):
        for row in read_part(part):
            if row["status"] == "ok" and not is_recorded(row):
                raise DataError(
                    f"{part.name} holds the pair {row['id']}, and the generator that made it is not recorded. Run: "
                    f"mai pairs verify '{folder}'"
                )
            if row["status"] == "ok" or not only_pairs:
                yield row


def card(settings: Settings) -> str:
    """README.md of the folder, as the hub reads it."""
    names = ", ".join(str(values.get("name")) for values, _ in settings.generators) or "none yet"
    return f"""---
configs:
- config_name: default
  data_files:
  - split: pairs
    path: data/pairs-*.parquet
tags:
- mai-pairs
---
# Pairs of authentic and synthetic images

Made by MAI. Each row holds an authentic image, what a generator made of it or of its caption, and how. Rows whose
`status` is not `ok` have no picture and say why. Both pictures are PNG of one size; give both the same codec and size
before a network sees them (`mai train` does). `kind` is AI-generated or AI-edited (then `mask` says where).

- Captioner: {settings.captioner}
- Generators: {names}
- Held out (split `test`): {", ".join(settings.held_out) or "none"}

The licences of the authentic images and of the generators' output (`generator.licence`) are theirs: check them before
you publish this set.
"""
