"""Pairs as other programs read them: image folders, WebDataset, questions for a vision-language model, the hub.

Pictures are written in order of id, so an export of the same set is the same, byte for byte (but for signatures).
"""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mai.errors import DataError, UsageError, require
from mai.pairs import settings as kept
from mai.pairs import store
from mai.pairs.sign import Key, signed

Target = Literal["imagefolder", "webdataset", "vqa", "hub"]
QUESTION = "Is this image AI-generated?"
TAR_ROWS = 1000
"""Pairs in one shard of a WebDataset."""


_ID = re.compile(r"[0-9a-f]{16}(-[0-9]+)?")
"""A row's id names files; a set from elsewhere may say anything, `../..` too."""


def export(folder: Path, to: Target, output: str, key: Key | None = None, private: bool = True) -> int:
    """Write the pairs of a folder in another form.

    Args:
        folder: of the pairs.
        to: the form.
        output: a new folder; for `hub` the repository, ORG/NAME.
        key: signs the synthetic files with a C2PA manifest; None leaves them bare.
        private: of a new repository at the hub.

    Returns:
        Pairs written.

    Raises:
        UsageError: there is no finished part, or the output is there already.
        DataError: a row's id is none.
    """
    if to == "hub":
        if key is not None:
            raise UsageError("The hub gets the shards as they are: --c2pa is for the other forms.")
        return _to_hub(folder, output, private)
    place = Path(output)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"'{place}' is there and not empty. Give another --output.")
    place.mkdir(parents=True, exist_ok=True)
    writers = {"imagefolder": _image_folder, "webdataset": _web_dataset, "vqa": _questions}
    return writers[to](_files(folder, key), place)


def _files(folder: Path, key: Key | None) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    """Each pair with its files: authentic, synthetic and, where there is one, mask."""
    for row in store.rows_of(folder):
        if not _ID.fullmatch(row["id"] or ""):
            raise DataError(
                f"'{folder}' holds a row {row['id']!r}: that is no id of MAI's, so no file is named by it."
            )
        files = {name: row[name]["bytes"] for name in store.IMAGES if row[name] is not None}
        if key is not None:
            files["synthetic"] = signed(files["synthetic"], row, key)
        yield row, files


def facts(row: dict[str, Any]) -> dict[str, Any]:
    """All that is known of a pair but the pictures."""
    return {name: value for name, value in row.items() if name not in (*store.IMAGES, "status", "message")}


def _image_folder(rows: Iterator[tuple[dict[str, Any], dict[str, bytes]]], place: Path) -> int:
    """authentic/, synthetic/, mask/, metadata.jsonl for Hugging Face, manifest.csv for MAI."""
    n = 0
    with (
        (place / "metadata.jsonl").open("w", encoding="utf-8") as lines,
        (place / "manifest.csv").open("w", encoding="utf-8", newline="") as table,
    ):
        writer = csv.writer(table)
        writer.writerow(["file", "label", "split", "source", "generator", "content", "image"])
        for row, files in rows:
            names = {}
            for member, data in files.items():
                (place / member).mkdir(exist_ok=True)
                names[f"{member}_file_name"] = f"{member}/{row['id']}.png"
                (place / member / f"{row['id']}.png").write_bytes(data)
            lines.write(json.dumps({**names, **facts(row)}, ensure_ascii=False) + "\n")
            for member in ("authentic", "synthetic"):
                if member == "synthetic" and row["kind"] != "AI-generated":
                    continue
                generator = row["generator"]["name"] if member == "synthetic" else ""
                writer.writerow(
                    [f"{member}/{row['id']}.png", member, row["split"] or "", row["source"], generator,
                     row["content"] or "", f"{row['id']}/{member}"]
                )  # fmt: skip
            n += 1
    return n


def _web_dataset(rows: Iterator[tuple[dict[str, Any], dict[str, bytes]]], place: Path) -> int:
    """pairs-000000.tar ...: KEY.authentic.png, KEY.synthetic.png, KEY.mask.png, KEY.json."""
    n, tar = 0, None
    try:
        for row, files in rows:
            if n % TAR_ROWS == 0:
                if tar:
                    tar.close()
                tar = tarfile.open(place / f"pairs-{n // TAR_ROWS:06d}.tar", "w")  # noqa: SIM115
            assert tar is not None  # opened with the first row
            members = {f"{name}.png": data for name, data in files.items()}
            members["json"] = json.dumps(facts(row), ensure_ascii=False).encode()
            for name, data in members.items():
                info = tarfile.TarInfo(f"{row['id']}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            n += 1
    finally:
        if tar:
            tar.close()
    return n


def _questions(rows: Iterator[tuple[dict[str, Any], dict[str, bytes]]], place: Path) -> int:
    """images/ and vqa.jsonl: image, question, answer `Yes.` or `No.`; what an edited picture is, is no yes or no."""
    n = 0
    (place / "images").mkdir()
    with (place / "vqa.jsonl").open("w", encoding="utf-8") as lines:
        for row, files in rows:
            if row["kind"] != "AI-generated":
                continue
            for member, answer in (("authentic", "No."), ("synthetic", "Yes.")):
                name = f"images/{row['id']}.{member}.png"
                (place / name).write_bytes(files[member])
                line = {"image": name, "question": QUESTION, "answer": answer, "pair": row["id"],
                        "source": row["source"], "split": row["split"],
                        "generator": row["generator"]["name"] if answer == "Yes." else None}  # fmt: skip
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            n += 1
    return n


def _to_hub(folder: Path, repository: str, private: bool) -> int:
    hub = require("huggingface_hub", "pairs", "Uploading")
    n: int = sum(store.counts_of(part)["statuses"].get("ok", 0) for part in store.parts(folder))
    try:
        api = hub.HfApi()
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_file(
            path_or_fileobj=store.card(kept.load(folder)).encode(), path_in_repo="README.md",
            repo_id=repository, repo_type="dataset",
        )  # fmt: skip
        api.upload_folder(
            folder_path=str(folder), repo_id=repository, repo_type="dataset",
            allow_patterns=["data/pairs-*.parquet"],
        )  # fmt: skip
    except Exception as error:  # the hub's library raises many kinds
        words = str(error).strip().splitlines()
        raise UsageError(
            f"The hub did not take {repository}: {words[0] if words else type(error).__name__}. Log in: hf auth login"
        ) from error
    return n
