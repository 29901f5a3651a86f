"""A contact sheet: pairs side by side with caption and generator, one HTML file that fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mai.pairs import store
from mai.report import page
from mai.report.thumbnail import data_url, jpeg

SHOWN_PX = 320
STYLE = """
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1rem }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem }
.members { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); gap: .5rem }
.members img { width: 100%; image-rendering: auto; border-radius: .25rem; background: var(--fill) }
.members span { display: block; font-size: .8rem; color: var(--soft); margin-top: .15rem }
figcaption { font-size: .9rem; margin-top: .5rem; overflow-wrap: anywhere } figcaption small { display: block }
"""


def rows_to_show(folder: Path, limit: int) -> list[dict[str, Any]]:
    """Pairs evenly over all parts, at most `limit`."""
    parts = store.parts(folder)
    n = sum(store.counts_of(part)["statuses"].get("ok", 0) for part in parts)
    step = max(1, n // limit)
    found = [row for i, row in enumerate(store.rows_of(folder)) if i % step == 0]
    return found[:limit]


def sheet(folder: Path, limit: int = 60) -> str:
    """The page."""
    rows = rows_to_show(folder, limit)
    counts: dict[str, int] = {}
    for part in store.parts(folder):
        for status, n in store.counts_of(part)["statuses"].items():
            counts[status] = counts.get(status, 0) + n
    told = ", ".join(f"{n:,} {status}" for status, n in sorted(counts.items(), key=lambda item: -item[1]))
    title = f"Pairs of {folder.resolve().name}"
    figures = "\n".join(_figure(row) for row in rows)
    return (
        page.head(title, STYLE, "")
        + f"<header><h1>{page.text(title)}</h1>"
        + f"<p class='soft'>{page.text(told)}. Shown: {len(rows):,}, made small.</p></header>"
        + f"<main><div class='pairs'>{figures}</div></main>"
        + "<footer><p>Made by mai pairs show. Left the authentic image, right the synthetic one.</p></footer>"
        + page.foot("")
    )


def _figure(row: dict[str, Any]) -> str:
    told = row["generator"]
    members: Sequence[tuple[str, str]] = (("authentic", "authentic"), ("synthetic", row["kind"]))
    if row["mask"]:
        members = (*members, ("mask", "painted anew"))
    pictures = "".join(
        f"<div><img alt='{name}' src='{data_url(_small(row[name]['bytes']))}'><span>{page.text(words)}</span></div>"
        for name, words in members
    )
    facts = f"{told['name']}, seed {told['seed']}"
    if told["steps"]:
        facts += f", {told['steps']} steps, guidance {told['guidance']:g}"
    facts += f", {told['width']}x{told['height']}"
    note = f"<small>{page.text(told['note'])}</small>" if told["note"] else ""
    return (
        f"<figure><div class='members'>{pictures}</div><figcaption>{page.text(row['caption'] or 'no caption')}"
        f"<small>{page.text(facts)}</small>{note}<small>{page.text(row['id'])}</small></figcaption></figure>"
    )


def _small(data: bytes) -> bytes:
    from mai.images.decode import decode, from_bytes

    pixels = decode(from_bytes(data)).pixels
    assert pixels is not None  # decode's promise
    return jpeg(pixels, SHOWN_PX, 85)
