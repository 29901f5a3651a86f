"""What is done with a set of pairs that is there: `status`, `verify`, `export`, `show`; and the list of generators."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mai.cli._pairs_options import OUTPUT


@click.command("status")
@click.argument("folder", type=OUTPUT)
@click.option("--json", "as_json", is_flag=True, help="JSON for programs in place of text.")
def status_command(folder: Path, as_json: bool) -> None:
    """Say how far a set of pairs is.

    Exit code: 0 finished, 1 parts are missing or damaged.
    """
    from mai.pairs import progress

    states = progress.summary(folder)
    click.echo(progress.as_json(states) if as_json else progress.text(states))
    done = bool(states) and all(state.is_done and not state.damaged for state in states.values())
    sys.exit(0 if done else 1)


@click.command("verify")
@click.argument("folder", type=OUTPUT)
@click.option(
    "--again",
    type=click.IntRange(min=0),
    default=0,
    help="Make so many synthetic images again and compare them.",
)
@click.option(
    "--weights", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As for generate."
)
@click.option("--device", default="", help="As for generate.")
def verify_command(folder: Path, again: int, weights: Path | None, device: str) -> None:
    """Look at every row again: none missing, none twice, pictures whole and alike, seeds as they are to be.

    Exit code: 0 whole, 1 rows are missing or something is wrong.
    """
    from mai.counting import counted
    from mai.pairs.generate import Runtime
    from mai.pairs.verify import verify

    found = verify(folder, again, Runtime(device=device, weights=weights))
    for what in found.problems[:50]:
        click.echo(what)
    if len(found.problems) > 50:
        click.echo(f"... and {len(found.problems) - 50:,} more")
    line = f"{counted(found.n_rows, 'row')}, {counted(found.n_pairs, 'pair')}, "
    line += f"{counted(found.n_missing, 'row')} missing, {counted(len(found.problems), 'problem')}"
    if again:
        line += f"; {found.n_same} of {found.n_again} came out the same bit for bit when made again"
    click.echo(line)
    sys.exit(1 if found.problems or found.n_missing else 0)


@click.command("export")
@click.argument("folder", type=OUTPUT)
@click.option(
    "--to",
    "target",
    type=click.Choice(["imagefolder", "webdataset", "vqa", "hub"]),
    required=True,
    help="The form.",
)
@click.option("--output", "-o", required=True, help="A new folder; for the hub ORG/NAME.")
@click.option(
    "--c2pa",
    "sign",
    is_flag=True,
    help="Sign the synthetic files with a C2PA manifest that says they are AI-generated.",
)
@click.option(
    "--sign-chain",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM of the signer's certificates. [default: a key made on the spot]",
)
@click.option(
    "--sign-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM of its private key."
)
@click.option(
    "--sign-algorithm",
    default="es256",
    show_default=True,
    help="Of that key: es256, es384, ps256 or ed25519.",
)
@click.option("--public", is_flag=True, help="Make the hub's repository public.")
def export_command(
    folder: Path, target: str, output: str, sign: bool, sign_chain: Path | None, sign_key: Path | None,
    sign_algorithm: str, public: bool,
) -> None:  # fmt: skip
    """Write the pairs as other programs read them.

    imagefolder: authentic/, synthetic/, metadata.jsonl and manifest.csv. webdataset: tar shards. vqa: image, question,
    answer. hub: uploads the shards to the Hugging Face hub.
    """
    from typing import cast

    from mai.errors import UsageError
    from mai.pairs.export import Target, export
    from mai.pairs.sign import own_key, read_key

    if (sign_chain is None) != (sign_key is None):
        raise UsageError("--sign-chain and --sign-key belong together.")
    key = None
    if sign or sign_chain:
        key = read_key(sign_chain, sign_key, sign_algorithm) if sign_chain and sign_key else own_key()
    n = export(folder, cast("Target", target), output, key, not public)
    click.echo(f"{n:,} pairs written to {output}")


@click.command("show")
@click.argument("folder", type=OUTPUT)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("pairs.html"),
    show_default=True,
    help="The page.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Pairs shown, evenly over the set.",
)
def show_command(folder: Path, output: Path, limit: int) -> None:
    """Write a contact sheet: pairs side by side with captions, one HTML file."""
    from mai.pairs.show import sheet
    from mai.report.destination import whole_file

    text = sheet(folder, limit)
    with whole_file(output) as file:
        file.write(text)
    click.echo(f"{output}")


@click.command("generators")
@click.option("--memory", metavar="SIZE", help="Say how each would be loaded with so much memory, as 12GB.")
def generators_command(memory: str | None) -> None:
    """List the generators: steps, guidance, memory, licence."""
    from mai.errors import UsageError
    from mai.pairs import registry

    given = registry.memory(memory) if memory else None
    for name, entry in registry.shipped().items():
        gigabytes = registry.PLANS[0].gigabytes(entry) if entry.network_b else None
        try:
            loaded = registry.plan_for(entry, given).name if entry.network_b and given else ""
        except UsageError:
            loaded = "does not fit"
        sampling = f"{entry.steps} steps, {entry.guidance_argument} {entry.guidance:g}" if entry.steps else ""
        size = f"{gigabytes:.0f} GB" if gigabytes else ""
        click.echo(f"{name:<18} {sampling:<32} {size:>6}  {loaded:<12} {entry.licence}".rstrip())
