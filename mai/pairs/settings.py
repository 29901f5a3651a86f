"""What a run was started with: written once into its folder, so that every worker and every resumption agrees."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mai.errors import UsageError
from mai.jobs.parts import write_json
from mai.pairs.registry import Entry, Mix, from_dict, toml_of

FILE = "pairs.json"
VERSION = 1
Edit = Literal["none", "image", "region"]


@dataclass(frozen=True)
class Settings:
    """One set of pairs in the making.

    Attributes:
        authentic: folder, labelled set or `hub:org/name` of authentic images.
        limit: at most so many rows, drawn at random by `seed`; 0: all.
        shard_rows: rows in one part, the unit of work and of what a kill can cost.
        seed: of draws; each row's own seed comes from this and its id.
        captioner: name, see mai/pairs/caption.py.
        caption_length: short, normal or long.
        generators: entries with weights; empty until the second pass was started.
        held_out: names of generators whose pairs are of the split `test`.
        edit: `none` makes a picture of the caption alone, `image` starts from the authentic one, `region` paints a part
            of it anew.
        strength: of edits, 0..1.
        keep_small: take authentic images that have to be enlarged.
    """

    authentic: str = ""
    limit: int = 0
    shard_rows: int = 64
    seed: int = 0
    captioner: str = "moondream"
    caption_length: str = "normal"
    generators: tuple[tuple[dict[str, Any], float], ...] = ()
    held_out: tuple[str, ...] = ()
    edit: Edit = "none"
    strength: float = 0.6
    keep_small: bool = False
    format: int = field(default=VERSION)

    @property
    def mix(self) -> Mix:
        """The generators."""
        entries: tuple[Entry, ...] = tuple(from_dict(values) for values, _ in self.generators)
        return Mix(entries, tuple(weight for _, weight in self.generators), frozenset(self.held_out))


def stored_mix(mix: Mix) -> tuple[tuple[dict[str, Any], float], ...]:
    """A mix as settings hold it."""
    return tuple((toml_of(entry), weight) for entry, weight in zip(mix.entries, mix.weights, strict=True))


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / FILE, folder / "generate.json"


FIRST_PASS = ("authentic", "limit", "shard_rows", "seed", "captioner", "caption_length", "format")
SECOND_PASS = ("generators", "held_out", "edit", "strength", "keep_small")


def load(folder: Path) -> Settings:
    """The settings of a folder; those of the second pass are the defaults until it was started.

    Raises:
        UsageError: it is no folder of pairs, or of a newer MAI.
    """
    first, second = _files(folder)
    if not first.is_file():
        raise UsageError(
            f"'{folder}' holds no pairs ({FILE} is missing). Start one: "
            "mai pairs make --authentic DIR --output DS --generator NAME"
        )
    values = json.loads(first.read_text("utf-8"))
    if values.get("format", 0) > VERSION:
        raise UsageError(f"'{folder}' was made by a newer MAI (format {values['format']}). Update MAI.")
    if second.is_file():
        values |= json.loads(second.read_text("utf-8"))
    values["generators"] = tuple((entry, weight) for entry, weight in values.get("generators", ()))
    values["held_out"] = tuple(values.get("held_out", ()))
    return Settings(**values)


def is_begun(folder: Path, which: tuple[str, ...]) -> bool:
    """Whether the settings of a pass stand in a folder."""
    return _files(folder)[which is SECOND_PASS].exists()


def begin(folder: Path, wanted: Settings, which: tuple[str, ...]) -> Settings:
    """Write the settings of a pass, or make sure that they are those that stand there.

    Args:
        folder: of the pairs.
        wanted: what this call asks for.
        which: FIRST_PASS or SECOND_PASS.

    Raises:
        UsageError: the folder was started with other settings, or holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = _files(folder)[which is SECOND_PASS]
    if not path.exists():
        if which is FIRST_PASS and any(
            p.name != "work" and not (p.name[:1] == "." and p.suffix == ".tmp") for p in folder.iterdir()
        ):
            raise UsageError(f"'{folder}' holds other files. Give --output a new or empty folder.")
        asked = asdict(wanted)
        write_json(path, {name: asked[name] for name in which})
    there = load(folder)
    for name in which:
        old, new = _plain(getattr(there, name)), _plain(getattr(wanted, name))
        if old != new:
            raise UsageError(
                f"'{folder}' was started with {name} {_told(name, old)}, not {_told(name, new)}. "
                f"Give the same, or another --output{_undo(folder, which)}."
            )
    return there


def _undo(folder: Path, which: tuple[str, ...]) -> str:
    """How settings are got rid of that nothing was made with yet."""
    parts, what = ("data", "picture") if which is SECOND_PASS else ("captions", "caption")
    if any((folder / parts).glob("*.parquet")):
        return ""
    named = f"'{_files(folder)[1]}'" if which is SECOND_PASS else "the folder"
    return f", or delete {named}: no {what} is made yet"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _told(name: str, value: Any) -> str:
    if name == "generators":
        return ", ".join(f"{entry.get('name')} ({weight:g})" for entry, weight in value) or "none"
    return f"'{value}'"
