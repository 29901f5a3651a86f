"""How far a set of pairs is: finished parts, rows by status, who works on what, how quick, how long still."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mai.errors import MaiError
from mai.jobs.leases import LEASE_S, Leases, is_dead
from mai.pairs import plan as plans
from mai.pairs import settings as kept
from mai.pairs import store
from mai.pairs.plan import n_shards

RECENT_S = 900.0
"""Rows a second are counted over the parts of the last so many seconds."""


@dataclass(slots=True)
class PassState:
    """One pass.

    Attributes:
        n_parts: finished.
        n_shards: in all.
        n_rows: rows in finished parts.
        n_all: rows in all.
        statuses: rows in finished parts by status.
        n_working: shards that a live worker has.
        n_in_work: rows that those have done.
        n_kept: rows of parts that were interrupted, kept for the next run.
        rows_per_s: over the last parts; None if nothing is known.
        seconds_left: at that rate.
        cost: in US dollars so far.
        damaged: parts that cannot be read.
    """

    n_parts: int = 0
    n_shards: int = 0
    n_rows: int = 0
    n_all: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    n_working: int = 0
    n_in_work: int = 0
    n_kept: int = 0
    rows_per_s: float | None = None
    seconds_left: float | None = None
    cost: float = 0.0
    damaged: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """True when every shard has its part."""
        return self.n_shards > 0 and self.n_parts == self.n_shards


def state_of(folder: Path, name: str, seen: dict[str, dict[str, Any]] | None = None) -> PassState:
    """The state of a pass.

    Args:
        folder: of the pairs.
        name: `caption` or `generate`.
        seen: counts of parts that were read before, filled; so that a display reads each part once.
    """
    settings, planned = kept.load(folder), plans.load(folder)
    seen = {} if seen is None else seen
    part_of = store.caption_part if name == "caption" else store.pair_part
    state = PassState(n_shards=n_shards(planned, settings.shard_rows), n_all=len(planned))
    times: list[tuple[float, int]] = []
    for shard in range(state.n_shards):
        path = part_of(folder, shard, state.n_shards)
        if path.name not in seen:
            try:
                seen[path.name] = {**store.counts_of(path), "at": path.stat().st_mtime}
            except FileNotFoundError:
                continue
            except MaiError as error:
                if path.exists():
                    state.damaged.append(str(error))
                continue
        counts = seen[path.name]
        statuses: Counter[str] = Counter(counts["statuses"])
        state.n_parts += 1
        state.statuses += statuses
        state.n_rows += statuses.total()
        state.cost += counts["cost"]
        times.append((counts["at"], statuses.total()))
    _add_workers(state, folder, name)
    _add_rate(state, times, folder, name)
    return state


def _add_workers(state: PassState, folder: Path, name: str) -> None:
    for partial in (folder / "work").glob(f"{name}-*.partial"):
        try:
            state.n_kept += sum(store.counts_of(partial)["statuses"].values())
        except MaiError:
            continue  # taken up again this moment
    place = folder / "work" / f"leases-{name}"
    if not place.is_dir() or state.is_done:
        return
    for lease in Leases(place).held().values():
        if lease.age_s < LEASE_S and not is_dead(lease.owner):
            state.n_working += 1
            state.n_in_work += int(lease.owner.get("rows", 0))


def _add_rate(state: PassState, times: list[tuple[float, int]], folder: Path, name: str) -> None:
    if not times or state.is_done:
        return
    last = max(at for at, _ in times)
    recent = [(at, n) for at, n in times if at > last - RECENT_S]
    first = min(at for at, _ in recent)
    rows = sum(n for _, n in recent) - next(n for at, n in recent if at == first)
    if last > first and rows > 0 and state.n_working:
        state.rows_per_s = rows / (last - first)
        state.seconds_left = max(0, state.n_all - state.n_rows - state.n_in_work) / state.rows_per_s


def summary(folder: Path) -> dict[str, PassState]:
    """Both passes; empty before planning."""
    if not (folder / plans.FILE).is_file():
        kept.load(folder)  # says what is wrong with the folder
        return {}
    return {name: state_of(folder, name) for name in ("caption", "generate")}


def duration(seconds: float) -> str:
    """`3 h 12 min`, `45 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def text(states: dict[str, PassState]) -> str:
    """For people."""
    if not states:
        return "Nothing is planned yet."
    lines = []
    for name, title in (("caption", "captions"), ("generate", "pictures")):
        state = states[name]
        line = (
            f"{title:<9} {state.n_rows:,} of {state.n_all:,} rows, {state.n_parts} of {state.n_shards} parts"
        )
        if state.n_working:
            line += f", {state.n_working} in work (+{state.n_in_work:,} rows)"
        elif state.n_kept and not state.is_done:
            line += f", {state.n_kept:,} rows of interrupted parts are kept"
        if state.rows_per_s is not None and state.seconds_left is not None:
            line += f", {state.rows_per_s:.2g} rows/s, {duration(state.seconds_left)} left"
        lines.append(line)
        for status, n in state.statuses.most_common():
            lines.append(f"            {n:>8,} {status}")
        if state.cost:
            lines.append(f"            {state.cost:.2f} US dollars")
        lines += [f"            damaged: {what}" for what in state.damaged]
    return "\n".join(lines)


def as_json(states: dict[str, PassState]) -> str:
    """For programs."""
    told = {
        name: {
            "parts": s.n_parts, "shards": s.n_shards, "rows": s.n_rows, "rows_in_all": s.n_all,
            "statuses": dict(s.statuses), "in_work": s.n_working,
            "rows_kept": s.n_kept, "rows_per_second": s.rows_per_s,
            "seconds_left": s.seconds_left, "cost": round(s.cost, 4), "damaged": s.damaged, "done": s.is_done,
        }
        for name, s in states.items()
    }  # fmt: skip
    return json.dumps({"schema": "mai.pairs.status/1", "at": round(time.time()), **told}, indent=1)
