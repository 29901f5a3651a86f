"""`mai adapt`: Tune shipped weights on a few dozen pictures of your own, and measure what that costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mai.data.labelled import Row
    from mai.pixel.adapt import Adapted, New
    from mai.weights import Weights


@click.command("adapt")
@click.argument("arch", type=click.Choice(["pixel"]))
@click.option(
    "--data",
    required=True,
    help="A labelled set: folders authentic/ and synthetic/ (one of them is enough), a CSV or Parquet.",
)
@click.option(
    "--label",
    type=click.Choice(["synthetic", "authentic"]),
    help="DATA is a plain folder of pictures, all of this class.",
)
@click.option("--weights", help="Name or folder of the weights to start from.  [default: the shipped ones]")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Weights folder.  [default: runs/NAME_adapted]"
)
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def command(
    arch: str, data: str, label: str | None, weights: str | None, output: Path | None, as_json: bool
) -> None:
    """Adapt the head of ARCH (pixel) to the pictures of DATA: a generator it misses, photographs it flags.

    Minutes on a CPU. Prints what it calls synthetic before and after, for your pictures (cross-validated: each is
    judged by a head that it had no part in) and for the pictures that the weights were calibrated on. Use the result
    with `mai scan --weights FOLDER`.
    """
    from mai import weights as weights_on_disk
    from mai.images.views import ViewPlan
    from mai.machine import n_cpus
    from mai.pixel import adapt, memory
    from mai.pixel.head import Head

    source = weights or arch
    loaded = weights_on_disk.load(Path(source) if Path(source).is_dir() else source)
    if loaded.architecture != arch:
        raise click.UsageError(f"{loaded.folder} holds weights of '{loaded.architecture}', not of '{arch}'.")
    remembered = memory.read(loaded.folder)
    head = Head(loaded.model_bytes())
    plan = ViewPlan(**loaded.preprocessing)
    new = adapt.read_new(_rows(data, label), head.features(n_cpus()), plan)
    found = adapt.adapt(new, remembered, head.weight, head.bias, loaded.fpr, _told(loaded))
    figures = _figures(found, new, loaded)
    if found.strength:
        folder = output or Path("runs") / f"{loaded.name}_adapted"
        _write(folder, loaded, head.with_numbers(found.weight, found.bias), found, figures)
        figures["folder"] = str(folder)
    click.echo(json.dumps(figures, indent=1) if as_json else _text(figures))
    if not found.strength:
        raise SystemExit(1)


def _rows(data: str, label: str | None) -> tuple[Row, ...]:
    from mai.data.labelled import Row
    from mai.data.sources import read_set
    from mai.images.find import find

    if label is None:
        return read_set(data, one_class=True).rows
    return tuple(Row(str(found.file), int(label == "synthetic")) for found in find([data]) if found.file)


def _told(loaded: Weights) -> str:
    return f"the calibration pictures that {loaded.name} remembers, aligned protocol"


def _figures(found: Adapted, new: New, loaded: Weights) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "weights": loaded.name,
        "strength": found.strength,
        "fpr": loaded.fpr,
        "n_synthetic": found.n_synthetic,
        "n_authentic": found.n_authentic,
        "n_known_synthetic": found.table.n_synthetic,
        "n_known_authentic": found.table.n_authentic,
        "before": asdict(found.before),
        "after": asdict(found.after),
        "broken": new.broken,
    }


def _write(folder: Path, loaded: Weights, model: bytes, found: Adapted, figures: dict[str, Any]) -> None:
    """The weights folder: as the one it came from, with another head, calibration and thresholds."""
    import hashlib
    import shutil

    from mai.pixel import memory

    folder.mkdir(parents=True, exist_ok=True)
    values = {key: value for key, value in loaded.config.items() if key not in ("measured", "folds")}
    values |= {
        "name": f"{loaded.name.removesuffix('_adapted')}_adapted",
        "sha256": hashlib.sha256(model).hexdigest(),
        "calibration": found.calibration.to_dict(),
        "thresholds": found.table.to_dict(),
        "adapted": figures,
    }
    if (folder / memory.FILE).resolve() != (loaded.folder / memory.FILE).resolve():
        shutil.copyfile(loaded.folder / memory.FILE, folder / memory.FILE)
    (folder / "model.onnx").write_bytes(model)
    (folder / "README.md").write_text(f"# {values['name']}\n\n```text\n{_text(figures)}\n```\n", "utf-8")
    temporary = folder / "config.json.tmp"
    temporary.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    temporary.replace(folder / "config.json")


def _text(figures: dict[str, Any]) -> str:
    from mai.report.escape import visible

    before, after = figures["before"], figures["after"]
    n_s, n_a = figures["n_synthetic"], figures["n_authentic"]
    lines = [
        f"{figures['weights']}, called synthetic at the threshold for {figures['fpr']:.0%} false positives"
    ]
    lines.append(f"{'':44}{'before':>12}{'after':>12}")
    if n_s:
        lines.append(
            f"{'your synthetic pictures (cross-validated)':44}"
            f"{before['new_caught']:>6} of {n_s:<3}{after['new_caught']:>5} of {n_s:<3}"
        )
    if n_a:
        lines.append(
            f"{'your authentic pictures (cross-validated)':44}"
            f"{before['new_flagged']:>6} of {n_a:<3}{after['new_flagged']:>5} of {n_a:<3}"
        )
    lines.append(
        f"{'AUROC of yours against known ones':44}{before['new_auroc']:>12.4f}{after['new_auroc']:>12.4f}"
    )
    known = f"known synthetic ({figures['n_known_synthetic']}) found at 5 % false alarms"
    lines.append(f"{known:44}{before['known_recall']:>12.3f}{after['known_recall']:>12.3f}")
    lines.append(
        f"{'AUROC on all known pictures':44}{before['known_auroc']:>12.4f}{after['known_auroc']:>12.4f}"
    )
    lines += [visible(f"left out: {file}: {why}") for file, why in figures["broken"].items()]
    if figures.get("folder"):
        lines.append(f"Written: {figures['folder']}. Try: mai scan PATH --weights {figures['folder']}")
    elif not figures["strength"]:
        lines.append(
            "Nothing was written: no change helped your pictures without costing the known ones more than "
            "0.01 AUROC or 0.02 recall. More pictures, of both classes, may."
        )
    return "\n".join(lines)
