"""`mai eval`: Measure weights on a labelled set, native and aligned, with intervals over sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("eval")
@click.argument("weights")
@click.option(
    "--data", required=True, help="Folder, CSV, Parquet file or hub:ORG/NAME with labels (docs/data.md)."
)
@click.option("--split", help="Only rows of this split.  [default: validation if there is one, else all]")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for eval.json.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON in place of the table.")
def command(weights: str, data: str, split: str | None, output: Path | None, as_json: bool) -> None:
    """Measure WEIGHTS (a name, an architecture or a folder) on a labelled set.

    The threshold is the one that ships with the weights, fixed before this set was seen; figures at thresholds
    chosen on this set are marked oracle. Brackets are 95 % intervals of a bootstrap over sources.
    """
    from mai import weights as weights_on_disk
    from mai.data.sketch import overlap
    from mai.data.sources import read_set
    from mai.data.split import assign_splits
    from mai.errors import require
    from mai.training.shipping import measure

    loaded = weights_on_disk.load(Path(weights) if Path(weights).is_dir() else weights)
    require("sklearn.metrics", "train", "Measuring")
    labelled = read_set(data)
    trained = loaded.config.get("trained", {})
    if trained.get("data") == labelled.name and any(row.split is None for row in labelled.rows):
        # Trained on this set: split it as the training did, so that what was learnt from is not measured.
        as_trained = assign_splits(labelled, seed=trained["recipe"]["run"]["seed"])
        labelled = as_trained if as_trained.fingerprint == trained["fingerprint"] else labelled
    if split is None and any(row.split == "validation" for row in labelled.rows):
        split = "validation"
    seen = overlap((r for r in labelled.rows if split is None or r.split == split), trained.get("sketch", []))
    if seen:
        click.echo(
            f"mai: these weights were trained on this set: {seen.n_known} of {seen.n_told} files that can be told. "
            "The figures say how well it was learnt by heart, not how good the weights are.",
            err=True,
        )
    elif trained and not trained.get("sketch"):
        click.echo(
            f"mai: {loaded.name} keeps no hashes of its training files, as weights exported by an older MAI: nobody "
            "can tell whether it was trained on this set.",
            err=True,
        )
    result = {
        "weights": loaded.name,
        "trained_on": {"n_known": seen.n_known, "n_told": seen.n_told},
        "command": f"mai eval {weights} --data {data}",
        **measure(loaded, labelled, split),
    }
    if output:
        output.mkdir(parents=True, exist_ok=True)
        (output / "eval.json").write_text(json.dumps(result, indent=1), "utf-8")
    click.echo(json.dumps(result, indent=1) if as_json else as_text(result))


LEAST = 20
"""Pictures that a group needs to have a line of its own."""


def _groups_as_text(kind: str, groups: list[dict[str, Any]]) -> list[str]:
    """A line a group of at least LEAST pictures."""
    large = [g for g in groups if g["n"] >= LEAST]
    if not large:
        return [f"aligned, per {kind}: none has {LEAST} pictures"]
    lines = [f"aligned, per {kind} ({LEAST} or more): called synthetic, AUROC against the other class"]
    for g in large:
        area = g.get("auroc_against_other_class")
        lines.append(
            f"  {g['name'][:44]:46}{g['label']:11}{g['n']:5}  {g['called_synthetic']:.2f}  "
            + (f"{area:.2f}" if area is not None else "-")
        )
    return lines


def as_text(result: dict[str, Any]) -> str:
    """The figures as lines for a terminal."""
    from mai.training.shipping import FIGURES

    columns = [name for name in ("aligned", "native", "web") if name in result]
    lines = [f"{result['weights']} on {result['data']}, split {result['split'] or 'all'}"]
    lines.append(f"{'':52}" + "".join(f"{name:24}" for name in columns))
    counts = [f"{result[c]['n_synthetic']} / {result[c]['n_authentic']}" for c in columns]
    lines.append(f"{'synthetic / authentic pictures':52}" + "".join(f"{text:24}" for text in counts))
    for key, title in FIGURES:
        cells = [result[c].get(key) for c in columns]
        lines.append(
            f"{title:52}"
            + "".join(f"{f'{v[0]:.3f} [{v[1]:.3f}, {v[2]:.3f}]' if v else '-':24}" for v in cells)
        )
    for name in ("generators", "sources", "contents"):
        lines += ["", *_groups_as_text(name[:-1], result["aligned"][name])]
    if result["aligned"]["n_broken"]:
        lines.append(f"{result['aligned']['n_broken']} files could not be read and are left out.")
    from mai.report.escape import visible

    return "\n".join(visible(line) for line in lines)  # names of sources are anybody's text
