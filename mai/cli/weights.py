"""mai weights: list and show trained weights; merge an adapter with its base; upload a folder of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mai.cli._group import Group


@click.group(cls=Group, short_help="List, show, merge and upload trained weights.")
def command() -> None:
    """List and show the weights of this installation; merge and upload those of a folder."""


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
    from mai.measure.metrics import wilson
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
    for kind, points, sign, n in (
        ("false positives", table.synthetic, ">=", table.n_authentic),
        ("false negatives", table.authentic, "<=", table.n_synthetic),
    ):
        for point in points:
            share = wilson(point.n_errors, n)
            click.echo(
                f"  {point.rate:>6g} {kind}: score {sign} {point.score:.4f} ({_errors(point.n_errors)}, "
                f"95 %: {share.low:.3f} to {share.high:.3f})"
            )
    card = found.folder / "README.md"
    if card.exists():
        click.echo()
        for line in card.read_text("utf-8", "replace").splitlines():
            click.echo(visible(line))


@command.command("merge")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--base", default="", help="Folder of the base.  [default: as the adapter says]")
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="bf16",
    show_default=True,
    help="Precision of the tensors written.",
)
def merge_adapter(folder: Path, output: Path, base: str, dtype: str) -> None:
    """Add the adapter in FOLDER (of `mai export moondream`) to its base and write one model to OUTPUT."""
    from mai import weights
    from mai.errors import UsageError, require

    require("peft", "vlm", "Merging")
    from mai.moondream.session import merge

    found = weights.load(folder)
    if found.architecture != "moondream":
        raise UsageError(
            f"{folder} holds weights of '{found.architecture}'; only adapters of moondream are merged."
        )
    click.echo(f"{merge(found, output, base, dtype)}: {found.name} and its base, {dtype}.")


@command.command("push")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repo", metavar="ORG/NAME")
@click.option("--public", is_flag=True, help="Make the repository public.  [default: private]")
def push(folder: Path, repo: str, public: bool) -> None:
    """Upload the weights in FOLDER (any that `mai export` made) to a model repository of the Hugging Face hub.

    The only command that sends anything anywhere. Log in first: hf auth login.
    """
    from mai import weights
    from mai.errors import UsageError, require

    hub = require("huggingface_hub", "vlm", "Uploading")
    found = weights.load(folder)
    found.model_bytes()  # refuse what is damaged
    if repo.count("/") != 1:
        raise UsageError(f"A repository is ORG/NAME, not '{repo}'.")
    try:
        api = hub.HfApi()
        api.create_repo(repo, private=not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=str(folder), commit_message=f"{found.name} by mai weights push"
        )
    except Exception as error:  # the hub's library raises many kinds: no network, no token, no right
        first = str(error).strip().splitlines()
        raise UsageError(
            f"{folder} could not be uploaded to {repo}: {first[0] if first else error}. Log in with `hf auth login`."
        ) from error
    click.echo(f"{found.name}: {done.commit_url}")


def _errors(n: int) -> str:
    return f"{n} error" if n == 1 else f"{n} errors"


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


@command.command("fuse")
@click.argument("names", metavar="WEIGHTS...", nargs=-1, required=True)
@click.option("--data", required=True, help="A labelled set with a calibration and a validation split.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The fusion.json to write.  [default: the one beside the weights that ship]",
)
@click.option("--force", is_flag=True, help="Write it also where it adds nothing that can be shown.")
@click.option("--json", "as_json", is_flag=True, help="JSON for programs.")
def fuse_weights(names: tuple[str, ...], data: str, output: Path | None, force: bool, as_json: bool) -> None:
    """Fit how networks are weighed together: WEIGHTS are names, architectures or folders.

    Fitted on the calibration split, measured on the validation split. Written only if its AUROC there is shown to be
    higher than that of the best network alone, and never where a network adds nothing to the others.
    """
    from mai import weights as weights_on_disk
    from mai.bench import fusion
    from mai.data.sources import read_set
    from mai.errors import require
    from mai.report.escape import visible
    from mai.verdict import learn

    require("sklearn.metrics", "train", "Measuring")
    loaded = [weights_on_disk.load(Path(name) if Path(name).is_dir() else name) for name in names]
    weighed = fusion.weigh(loaded, read_set(data))
    for file, sentence in weighed.broken.items():
        click.echo(visible(f"left out: {file}: {sentence}"), err=True)
    if weighed.fusion is None:
        if as_json:
            click.echo(json.dumps({"useless": list(weighed.useless), "written": None}, indent=1))
        else:
            click.echo(f"Not written: {', '.join(weighed.useless)} adds nothing to the others.")
        return
    path = output or weights_on_disk.FOLDER / "fusion.json"
    key, entry = weighed.entry()
    is_kept = force or weighed.is_worth_it
    if is_kept:
        learn.write_entry(path, key, entry)
    if as_json:
        click.echo(json.dumps({**entry, "written": str(path) if is_kept else None}, indent=1))
        return
    for name, factor in entry["coefficients"].items():
        click.echo(f"{name:<24} factor {factor:.3f}")
    if measured := weighed.measured:
        for name, own in {**measured["auroc"], "fused": measured["auroc_fused"]}.items():
            click.echo(f"{name:<24} AUROC {own[0]:.3f} [{own[1]:.3f}, {own[2]:.3f}]")
        gain = measured["gain"]
        click.echo(f"gain over {measured['best_alone']}: {gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}]")
    click.echo(f"Written to {path}" if is_kept else "Not written: no gain was shown (--force writes it).")
