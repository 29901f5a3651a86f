"""mai calibrate: Fit a detector's score and thresholds on your own labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mai.data.labelled import LabelledSet
    from mai.detectors._hub import HubDetector
    from mai.verdict.learn import Looked


@click.command("calibrate")
@click.argument("detector")
@click.option(
    "--data", required=True, help="Folder, CSV, Parquet file or hub:ORG/NAME with labels (docs/data.md)."
)
@click.option(
    "--with",
    "others",
    default="pixel",
    show_default=True,
    metavar="A,B",
    help="Networks to fit it together with, so that it weighs beside them; empty: none.",
)
@click.option(
    "--protocol",
    type=click.Choice(["aligned", "native"]),
    default="aligned",
    show_default=True,
    help="aligned: both classes through the same drawn window, size and codec; native: files as stored.",
)
@click.option(
    "--synthetic-label",
    "synthetic_labels",
    multiple=True,
    metavar="LABEL",
    help="A label of hub:ORG/NAME that means synthetic, where its words do not say it (may be given again).",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Weights folder, for networks of MAI.  [default: NAME-calibrated]",
)
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the network."
)
def command(
    detector: str,
    data: str,
    others: str,
    protocol: str,
    synthetic_labels: tuple[str, ...],
    output: Path | None,
    threads: int,
) -> None:
    """Fit score and thresholds of DETECTOR on labelled pictures that it was not trained on.

    DETECTOR is hub:ORG/NAME or hub:FOLDER (an image classifier of transformers), a network of MAI, or a folder of
    weights. A hub classifier's calibration is kept in your data folder (MAI_DATA, else ~/.local/share/mai) and used
    from then on; a network's goes into a copy of its weights. The set's calibration split is used, or all of a set
    without splits.
    """
    from mai.data.sources import read_set
    from mai.errors import require

    require("sklearn", "train", "Calibrating")
    require("cv2", "train", "Calibrating")
    labelled = read_set(data)
    if not detector.startswith("hub:"):
        if synthetic_labels:
            raise click.UsageError("--synthetic-label is for hub:ORG/NAME; a network of MAI has one output.")
        _network(detector, labelled, output, protocol, threads)
        return
    if output:
        raise click.UsageError(
            "--output is for networks of MAI; a hub classifier's calibration is kept for you."
        )
    _hub(
        detector,
        labelled,
        [name for name in others.split(",") if name.strip()],
        protocol,
        synthetic_labels,
        threads,
    )


def _network(name: str, labelled: LabelledSet, output: Path | None, protocol: Any, threads: int) -> None:
    """A copy of the weights with calibration and thresholds of this set."""
    import shutil
    import tempfile

    from mai import weights as weights_on_disk
    from mai.detectors import base
    from mai.detectors.base import DetectorSettings
    from mai.errors import UsageError
    from mai.verdict import learn

    loaded = weights_on_disk.load(Path(name) if Path(name).is_dir() else name)
    folder = output or Path(f"{loaded.name}-calibrated")
    if folder.exists():
        raise UsageError(f"'{folder}' exists. Give another --output.")
    detector = base.load(loaded.architecture, DetectorSettings(loaded.folder, threads))
    rows, part = learn.rows_for(labelled)
    looked = learn.look({detector.name: detector}, rows, protocol)
    _tell_broken(looked)
    told = f"{labelled.name}, {part}, {protocol} protocol, {len(set(looked.sources))} sources"
    kept = {key: value for key, value in loaded.config.items() if key != "measured"}  # at other thresholds
    logits = looked.logits[detector.name]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as making:
        made = Path(making) / "weights"
        made.mkdir()
        shutil.copyfile(loaded.model, made / loaded.model.name)
        _write_json(made / "config.json", {**kept, **learn.calibrated(logits, looked.labels, told)})
        own = weights_on_disk.load(made)
        lines = [
            f"# {loaded.name}, calibrated on {labelled.name}",
            "",
            _separates(loaded.name, logits, looked) + ".",
        ]
        lines += ["", _thresholds(own), "", "What follows is the card of the weights as they were.", ""]
        card = loaded.folder / "README.md"
        text = card.read_text("utf-8", "replace") if card.is_file() else ""
        (made / "README.md").write_text("\n".join(lines) + "\n" + text, "utf-8")
        made.rename(folder)
    click.echo(_separates(loaded.name, logits, looked))
    click.echo(_thresholds(own))
    click.echo(f"Written: {folder}. Use it: mai scan PATH --weights {folder}")


def _tell_broken(looked: Looked) -> None:
    from mai.report.escape import visible

    for file, sentence in looked.broken.items():
        click.echo(visible(f"left out: {file}: {sentence}"), err=True)


def _hub(
    name: str,
    labelled: LabelledSet,
    others: list[str],
    protocol: Any,
    synthetic_labels: tuple[str, ...],
    threads: int,
) -> None:
    from datetime import UTC, datetime

    from mai import weights as weights_on_disk
    from mai.detectors import base
    from mai.detectors._hub import HubDetector
    from mai.detectors.base import DetectorSettings
    from mai.verdict import learn
    from mai.weights.user import calibration_folder

    detector = HubDetector(name, DetectorSettings(n_threads=threads, synthetic_labels=synthetic_labels))
    beside = [base.load(other.strip(), DetectorSettings(n_threads=threads)) for other in others]
    rows, part = learn.rows_for(labelled)
    asked: dict[str, base.Detector] = {detector.name: detector}
    asked |= {other.name: other for other in beside}
    looked = learn.look(asked, rows, protocol)
    _tell_broken(looked)
    told = f"{labelled.name}, {part}, {protocol} protocol, {len(set(looked.sources))} sources"
    values = {
        "format": weights_on_disk.FORMAT,
        "name": detector.weights,
        "architecture": "hub",
        "created": datetime.now(UTC).date().isoformat(),
        "sha256": detector.sha256,
        "preprocessing": {},
        "labels": {
            detector.labels[i]: "synthetic" if side else "authentic" for i, side in detector.sides.items()
        },
        "fingerprint": labelled.fingerprint,
        **learn.calibrated(looked.logits[name], looked.labels, told),
    }
    folder = calibration_folder(detector.calibration_name)
    _write_json(folder / "config.json", values)
    own = weights_on_disk.load(folder)
    click.echo(_separates(name, looked.logits[name], looked))
    click.echo(_thresholds(own))
    click.echo(f"Kept in {folder}.")
    if beside:
        _fuse(detector, own, beside, looked, told)
    words = ",".join([*others, name])
    labels = "".join(f" --synthetic-label {label}" for label in synthetic_labels)
    click.echo(f"Use it: mai scan PATH --detectors {words}{labels}")


def _fuse(detector: HubDetector, own: Any, beside: list[Any], looked: Looked, told: str) -> None:
    from mai.verdict import learn
    from mai.weights.user import fusion_file

    weights = {**{other.name: other.loaded for other in beside}, detector.name: own}
    fused = learn.fit_fusion(looked, weights, told)
    names = " + ".join(weights)
    click.echo(_separates(names, fused.scores, looked) + " (left-out sources)")
    for other in beside:
        click.echo(_separates(other.name, looked.logits[other.name], looked))
    if fused.fusion is None:
        click.echo(
            f"{', '.join(fused.useless)} adds nothing to the others on these pictures: no fusion is kept, and the "
            "first network that is asked gives the score."
        )
        return
    learn.write_entry(fusion_file(), *learn.fusion_entry(fused.fusion))
    factors = ", ".join(f"{name} {factor:.2f}" for name, factor in fused.fusion.coefficients.items())
    click.echo(f"Weighed together from now on (factors on logits: {factors}).")


def _separates(name: str, values: Any, looked: Looked) -> str:
    from mai.measure import metrics

    area = metrics.bootstrap(metrics.auroc, values, looked.labels.astype(bool), looked.sources, 500)
    n = int(looked.labels.sum())
    return f"{name}: AUROC {area} on {n} synthetic and {len(looked.labels) - n} authentic pictures"


def _thresholds(own: Any) -> str:
    synthetic, authentic = own.table.at_fpr(own.fpr), own.table.at_fnr(own.fnr)
    return (
        f"Synthetic from a score of {synthetic.score:.3f} ({own.fpr:g} false positives), authentic up to "
        f"{authentic.score:.3f} ({own.fnr:g} false negatives). Measured on {own.table.data}."
    )


def _write_json(path: Path, values: Any) -> None:
    import json
    import os

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    temporary.replace(path)
