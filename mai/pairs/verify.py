"""Looks at a set of pairs again: every row there once, pictures whole and alike, seeds as they are to be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mai.errors import DataError, ImageError
from mai.pairs import plan as plans
from mai.pairs import settings as kept
from mai.pairs import store
from mai.pairs.filters import STATUSES
from mai.pairs.generate import Request, Runtime, open_generator
from mai.pairs.plan import n_shards
from mai.pairs.registry import Entry, seed_of


@dataclass(slots=True)
class Verified:
    """What was found.

    Attributes:
        n_rows: rows in finished parts.
        n_pairs: of them pairs.
        n_missing: planned rows that no part holds yet.
        n_again: pairs whose synthetic image was made again; never those of hosted generators, which take no seed.
        n_same: of those the same, bit for bit.
        problems: sentences; empty for a set that is whole.
    """

    n_rows: int = 0
    n_pairs: int = 0
    n_missing: int = 0
    n_again: int = 0
    n_same: int = 0
    problems: list[str] = field(default_factory=list)


def verify(folder: Path, again: int = 0, runtime: Runtime | None = None) -> Verified:
    """Check a set of pairs.

    Args:
        folder: of the pairs; it need not be finished.
        again: pairs whose synthetic image is made again and compared, drawn by id.
        runtime: where generators run, for `again`.

    Raises:
        UsageError: it is no folder of pairs.
    """
    settings, planned = kept.load(folder), plans.load(folder)
    found = Verified()
    ids: Counter[str] = Counter()
    n = n_shards(planned, settings.shard_rows)
    to_make: list[dict[str, Any]] = []
    for shard in range(n):
        path = store.pair_part(folder, shard, n)
        if not path.is_file():
            continue
        try:
            rows = store.read_part(path)
        except DataError as error:
            found.problems.append(str(error))
            continue
        wanted = [row.id for row in planned[shard * settings.shard_rows : (shard + 1) * settings.shard_rows]]
        if [row["id"] for row in rows] != wanted:
            found.problems.append(f"{path.name} holds other rows than were planned.")
        ids.update(row["id"] for row in rows)
        for row in rows:
            found.n_rows += 1
            problems = _problems(row, settings.seed)
            found.problems += [f"{path.name}, row {row['id']}: {what}" for what in problems]
            if row["status"] == "ok":
                found.n_pairs += 1
            if row["status"] == "ok" and not problems:
                to_make.append({"generator": row["generator"]["name"], "id": row["id"], "part": path})
    found.problems += [f"The row {name} is there {count} times." for name, count in ids.items() if count > 1]
    found.n_missing = sum(1 for row in planned if row.id not in ids)
    unknown = set(ids) - {row.id for row in planned}
    found.problems += [f"The row {name} was never planned." for name in sorted(unknown)]
    if again:
        hosted = {entry.name for entry in settings.mix.entries if entry.kind == "http"}
        to_make = sorted(
            (row for row in to_make if row["generator"] not in hosted), key=lambda row: str(row["id"])
        )
        _make_again(settings, to_make[:again], runtime or Runtime(), found)
    return found


def _problems(row: dict[str, Any], seed: int) -> list[str]:
    if row["status"] not in STATUSES:
        return [f"unknown status '{row['status']}'"]
    if row["status"] != "ok":
        return [] if row["message"] else ["a status without a message"]
    if not store.is_recorded(row):
        return ["it is a pair, and the generator that made it is not recorded (name, seed, width and height)"]
    problems = []
    if row["generator"]["seed"] != seed_of(row["id"], seed):
        problems.append("its seed is not that of its id")
    try:
        members = [_pixels(row, name) for name in ("authentic", "synthetic")]
    except (DataError, ImageError) as error:
        return [*problems, str(error)]
    wanted = (row["generator"]["height"], row["generator"]["width"], 3)
    if any(pixels.shape != wanted for pixels in members):
        problems.append(
            f"the pictures are {members[0].shape[:2]} and {members[1].shape[:2]}, not {wanted[:2]}"
        )
    if (row["kind"] == "AI-edited") is (row["mask"] is None and row["generator"]["strength"] is None):
        problems.append("its kind and what was done to it disagree")
    return problems


def _pixels(row: dict[str, Any], name: str) -> Any:
    from mai.images.decode import decode, from_bytes

    held = row[name]
    if not held or not held["bytes"]:
        raise DataError(f"it has no {name} picture")
    image = from_bytes(held["bytes"])
    if image.info is None or image.info.format != "PNG":
        raise DataError(f"its {name} picture is no PNG")
    return decode(image).pixels


def _make_again(
    settings: kept.Settings, chosen: list[dict[str, Any]], runtime: Runtime, found: Verified
) -> None:
    entries: dict[str, Entry] = {entry.name: entry for entry in settings.mix.entries}
    unknown = sorted({str(row["generator"]) for row in chosen} - set(entries))
    found.problems += [
        f"The generator '{name}' is not one that the set was started with." for name in unknown
    ]
    for name in sorted({str(row["generator"]) for row in chosen} & set(entries)):
        generator = open_generator(entries[name], settings.edit, settings.strength, runtime)
        for one in [row for row in chosen if row["generator"] == name]:
            row = next(row for row in store.read_rows(one["part"]) if row["id"] == one["id"])
            authentic = _pixels(row, "authentic")
            mask = None
            if row["mask"]:
                mask = np.ascontiguousarray(_mask(row["mask"]["bytes"]))
            told = row["generator"]
            request = Request(
                row["id"], row["caption"] or "", told["seed"], told["width"], told["height"], authentic, mask
            )
            made = generator.make([request])[0]
            found.n_again += 1
            if made.pixels is not None and np.array_equal(made.pixels, _pixels(row, "synthetic")):
                found.n_same += 1
            elif told["versions"] == generator.versions:
                found.problems.append(f"The row {row['id']} came out otherwise when it was made again.")


def _mask(data: bytes) -> Any:
    import io

    from PIL import Image as PILImage

    return np.asarray(PILImage.open(io.BytesIO(data)).convert("L"))
