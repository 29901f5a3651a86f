"""mai weights: list and show the trained weights that are in this installation."""

from __future__ import annotations

import json
from typing import Any

import click


@click.group(short_help="List and show trained weights.")
def command() -> None:
    """List and show the trained weights that are in this installation."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON for programs.")
def list_weights(as_json: bool) -> None:
    """List all weights, one a line."""
    from mai import weights

    rows = [_facts(weights.load(name)) for name in weights.available()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("No weights are in this installation. Train some: mai train resnet --data DATA")
    for row in rows:
        click.echo(
            f"{row['name']:<16} {row['architecture']:<10} {row['bytes'] / 1e6:6.1f} MB   "
            f"default: {row['fpr']:g} false positives, {row['fnr']:g} false negatives"
            f"{'' if row['intact'] else '   DAMAGED'}"
        )


@command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The whole config.json.")
def show(name: str, as_json: bool) -> None:
    """Show the card of weights: NAME is resnet_v1_0, resnet (its newest), or a folder."""
    from mai import weights
    from mai.report.escape import visible

    found = weights.load(name)
    if as_json:
        click.echo(json.dumps(dict(found.config), indent=2))
        return
    facts = _facts(found)
    table = found.table
    click.echo(f"{found.name}: {found.architecture}, {facts['bytes'] / 1e6:.1f} MB, in {found.folder}")
    click.echo(
        f"sha256 {found.config['sha256']} {'matches' if facts['intact'] else 'DOES NOT MATCH'} the file"
    )
    click.echo(
        f"Thresholds measured on {table.n_authentic} authentic and {table.n_synthetic} synthetic images:"
    )
    for kind, points, sign in (
        ("false positives", table.synthetic, ">="),
        ("false negatives", table.authentic, "<="),
    ):
        for point in points:
            click.echo(f"  {point.rate:>6g} {kind}: score {sign} {point.score:.4f} ({point.n_errors} errors)")
    card = found.folder / "README.md"
    if card.exists():
        click.echo()
        for line in card.read_text("utf-8", "replace").splitlines():
            click.echo(visible(line))


def _facts(found: Any) -> dict[str, Any]:
    from mai.errors import WeightsError

    try:
        n_bytes, intact = len(found.model_bytes()), True
    except WeightsError:
        n_bytes, intact = found.model.stat().st_size if found.model.exists() else 0, False
    return {
        "name": found.name,
        "architecture": found.architecture,
        "bytes": n_bytes,
        "intact": intact,
        "fpr": found.fpr,
        "fnr": found.fnr,
        "n_authentic": found.table.n_authentic,
        "n_synthetic": found.table.n_synthetic,
        "data": found.table.data,
        "folder": str(found.folder),
    }
