"""What a generator is: one TOML file each in `generators/`, and files that users write.

`sd3.5-large` names a shipped entry, `vae:taesd` an autoencoder, a path that ends in .toml a file. `a=3,b=1` mixes
generators by weight. `--memory 12GB` picks how an entry is loaded from its number of parameters (see PLANS).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from mai import config
from mai.errors import ConfigError, UnknownNameError, UsageError

FOLDER = Path(__file__).parent / "generators"
CODE = ("trust_remote_code", "custom_pipeline")
"""Arguments that run code which comes with a model; an entry, which may be anybody's file, cannot give them."""

Kind = Literal["diffusers", "autoencoder", "http", "tiny", "small64"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A generator.

    Attributes:
        name: as people call it; the file's stem where the file names none.
        kind: what runs it: a diffusers pipeline, an autoencoder's round trip, an HTTP API, or one built in.
        id: at the hub, a folder, or the API's model.
        revision: commit or branch at the hub.
        steps: of sampling; 0 where there are none.
        guidance: scale; stored in every row.
        guidance_argument: what the pipeline calls it.
        sizes: `WIDTHxHEIGHT` that it makes; the nearest in shape to the authentic image is taken. Empty: the authentic
            image's own size, cut to `multiple`.
        multiple: sides are multiples of so many pixels.
        max_side: longest side in pixels where `sizes` is empty; larger images are made smaller first.
        dtype: bf16, fp16 or fp32.
        network_b: parameters of the denoiser, in billions, for `--memory`.
        text_b: parameters of its text encoders, in billions.
        licence: name of it.
        gated: the hub asks for a log-in that has accepted the licence.
        note: what to know; stored in every row.
        arguments: more arguments of the pipeline's call; those it does not know are dropped.
        loading: more arguments of from_pretrained.
        url: of the API, up to `/images/generations`.
        key_variable: environment variable with the API's key.
        price: of one image in US dollars, counted up.
        per_minute: most requests a minute; 0: no limit.
    """

    name: str = ""
    kind: Kind = "diffusers"
    id: str = ""
    revision: str = "main"
    steps: int = 0
    guidance: float = 0.0
    guidance_argument: str = "guidance_scale"
    sizes: tuple[str, ...] = ()
    multiple: int = 16
    max_side: int = 1024
    dtype: str = "bf16"
    network_b: float = 0.0
    text_b: float = 0.0
    licence: str = ""
    gated: bool = False
    note: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    loading: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    key_variable: str = ""
    price: float = 0.0
    per_minute: float = 0.0

    def __post_init__(self) -> None:
        config.need(self.steps >= 0, "steps", self.steps, "0 or more")
        config.need(self.multiple >= 1, "multiple", self.multiple, "1 or more")
        config.need(self.dtype in {"bf16", "fp16", "fp32"}, "dtype", self.dtype, "bf16, fp16 or fp32")
        for size in self.sizes:
            sides = size.split("x")
            fits = len(sides) == 2 and all(side.isdigit() and int(side) > 0 for side in sides)
            config.need(fits, "sizes", size, "WIDTHxHEIGHT")
        for name in CODE:
            told = (*self.loading, *self.arguments)
            config.need(
                name not in told, f"loading.{name}", "set", "left out: it runs code of the model's author"
            )

    @property
    def buckets(self) -> tuple[tuple[int, int], ...]:
        """`sizes` as (width, height)."""
        return tuple((int(w), int(h)) for w, h in (size.split("x") for size in self.sizes))


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to load a pipeline.

    Attributes:
        name: as `--load` takes it.
        quantised: the denoiser and the large text encoder in NF4.
        offload: `none`, `model` (one part on the GPU at a time) or `sequential` (one layer at a time).
    """

    name: str
    quantised: bool
    offload: Literal["none", "model", "sequential"]

    def gigabytes(self, entry: Entry) -> float:
        """GPU memory that it takes, an estimate: 2 bytes a parameter, 0.6 in NF4, and 2.5 GB for the work itself."""
        each = 0.6 if self.quantised else 2.0
        parts = (entry.network_b * each, entry.text_b * each)
        held = {"none": sum(parts), "model": max(parts), "sequential": 0.5}[self.offload]
        return held + 2.5


PLANS = (
    Plan("full", False, "none"),
    Plan("offload", False, "model"),
    Plan("nf4", True, "none"),
    Plan("nf4-offload", True, "model"),
    Plan("sequential", False, "sequential"),
)
"""From the quickest to the smallest. `full` and `offload` compute in the entry's dtype, bit for bit the same model."""


def plan_for(entry: Entry, memory_gb: float | None, name: str | None = None) -> Plan:
    """How to load an entry.

    Args:
        entry: which.
        memory_gb: of the GPU; None: as much as it takes.
        name: of a plan, wins.

    Raises:
        UnknownNameError: there is no such plan.
        UsageError: it does not fit in any.
    """
    if name is not None:
        found = next((plan for plan in PLANS if plan.name == name), None)
        if found is None:
            raise UnknownNameError("way to load", name, [plan.name for plan in PLANS])
        return found
    if memory_gb is None:
        return PLANS[0]
    for plan in PLANS:
        if plan.gigabytes(entry) <= memory_gb:
            return plan
    least = min(plan.gigabytes(entry) for plan in PLANS)
    raise UsageError(f"{entry.name} takes at least {least:.1f} GB; --memory says {memory_gb:g} GB.")


def memory(text: str) -> float:
    """`12GB`, `12 gb` or `12` as gigabytes.

    Raises:
        UsageError: it is none.
    """
    try:
        value = float(text.strip().lower().removesuffix("gb").removesuffix("g"))
    except ValueError:
        value = 0.0
    if not value > 0:
        raise UsageError(f"--memory takes gigabytes, as 12GB, not '{text}'.")
    return value


@cache
def shipped() -> dict[str, Entry]:
    """All entries that come with MAI, by name."""
    return {entry.name: entry for entry in map(read, sorted(FOLDER.glob("*.toml")))}


def read(path: Path) -> Entry:
    """An entry from a TOML file.

    Raises:
        ConfigError: the file is missing, or a key or value is wrong.
    """
    entry = config.read(Entry, path)
    if not entry.id and entry.kind not in {"tiny", "small64"}:
        raise ConfigError(f"{path.name}: the key 'id' is missing.")
    if entry.kind == "http" and not entry.url:
        raise ConfigError(f"{path.name}: the key 'url' is missing.")
    return entry if entry.name else _renamed(entry, path.stem)


def _renamed(entry: Entry, name: str) -> Entry:
    from dataclasses import replace

    return replace(entry, name=name)


def find(name: str) -> Entry:
    """An entry by name, `vae:NAME` or path of a TOML file.

    Raises:
        UnknownNameError: there is none.
        ConfigError: the file is wrong.
    """
    if name.endswith(".toml"):
        return read(Path(name))
    if name.startswith("vae:") and name not in shipped():
        return Entry(
            name=name,
            kind="autoencoder",
            id=name.removeprefix("vae:"),
            multiple=16,
            dtype="fp32",
            max_side=1024,
        )
    if name not in shipped():
        raise UnknownNameError("generator", name, shipped())
    return shipped()[name]


@dataclass(frozen=True, slots=True)
class Mix:
    """Generators and how often each is drawn.

    Attributes:
        entries: the generators.
        weights: one each, above 0.
        held_out: names whose pairs are of the split `test`.
    """

    entries: tuple[Entry, ...]
    weights: tuple[float, ...]
    held_out: frozenset[str] = frozenset()

    def of(self, unit: str) -> Entry:
        """The generator of a row: drawn by its id, so it is the same on every worker and in every run.

        Where some are held out it is drawn by the row's source, so that no source stands in two splits.
        """
        if len(self.entries) == 1:
            return self.entries[0]
        digest = hashlib.sha256(b"mai pairs generator\0" + unit.encode("utf-8", "surrogateescape")).digest()
        at = int.from_bytes(digest[:8], "big") / 2**64 * sum(self.weights)
        for entry, weight in zip(self.entries, self.weights, strict=True):
            at -= weight
            if at < 0:
                return entry
        return self.entries[-1]


def mix(texts: Sequence[str], held_out: Sequence[str] = ()) -> Mix:
    """Generators from `NAME`, `NAME=WEIGHT` or a list of them with commas.

    Raises:
        UsageError: a weight is no number above 0, a name stands twice, or a name held out is not among them.
    """
    entries: list[Entry] = []
    weights: list[float] = []
    for word in [word.strip() for text in texts for word in text.split(",") if word.strip()]:
        name, equals, told = word.partition("=")
        try:
            weight = float(told) if equals else 1.0
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf"):
            raise UsageError(f"A generator's weight is a number above 0, as {name}=2; not '{told}'.")
        entries.append(find(name))
        weights.append(weight)
    names = [entry.name for entry in entries]
    if not entries:
        raise UsageError("No generator is named. Give --generator; `mai pairs generators` lists them.")
    if len(set(names)) < len(names):
        raise UsageError(f"A generator stands twice among {', '.join(names)}.")
    if unknown := set(held_out) - set(names):
        raise UsageError(f"--hold-out {sorted(unknown)[0]} is not among the generators: {', '.join(names)}.")
    if held_out and len(set(held_out)) == len(names):
        raise UsageError("All generators are held out. Leave one to train on.")
    return Mix(tuple(entries), tuple(weights), frozenset(held_out))


def seed_of(row_id: str, base: int) -> int:
    """The seed of a row, 0..2^31-1: from its id and the run's seed alone, so the same on any worker."""
    digest = hashlib.sha256(f"mai pairs seed\0{base}\0{row_id}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def toml_of(entry: Entry) -> dict[str, Any]:
    """The values that differ from the defaults, for the settings file."""
    plain = Entry()
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name in Entry.__dataclass_fields__
        if (value := getattr(entry, name)) != getattr(plain, name)
    }


def from_dict(values: dict[str, Any]) -> Entry:
    """What toml_of gave."""
    return config.build(Entry, values, "pairs.json")
