"""A benchmark's report as Markdown: for a README, a card, a terminal."""

from __future__ import annotations

from typing import Any

ROWS: tuple[tuple[str, str], ...] = (
    ("auroc", "AUROC"),
    ("average_precision", "average precision"),
    ("balanced_accuracy", "balanced accuracy at the fixed threshold"),
    ("recall", "synthetic called synthetic (recall)"),
    ("flagged", "authentic called synthetic"),
    ("tpr_at_1_fpr_oracle", "TPR@1%FPR (oracle)"),
    ("tpr_at_5_fpr_oracle", "TPR@5%FPR (oracle)"),
    ("eer_oracle", "EER (oracle)"),
    ("ece", "ECE"),
    ("nll", "NLL"),
    ("brier", "Brier"),
)


WORST = (("worst_generator", "worst generator, AUROC"), ("worst_source", "worst authentic source, AUROC"))


def three(value: list[float] | None) -> str:
    """Value and interval, or nothing."""
    return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]" if value else ""


def base_cells(report: dict[str, Any], protocol: str) -> dict[str, dict[str, Any]]:
    """Detector -> its unperturbed cell under a protocol."""
    return {
        name: cell
        for name, own in report["detectors"].items()
        for cell in own["cells"]
        if cell["protocol"] == protocol and cell["perturbation"] == "none"
    }


def floor_words(cell: dict[str, Any]) -> str:
    """Whether a result clears its floors, in words."""
    if "within_floors" not in cell:
        return "not measured"
    under = [name for name, is_in in cell["within_floors"].items() if is_in]
    return f"**within the floor of {', '.join(under)}: no result**" if under else "above all floors"


def markdown(report: dict[str, Any], command: str) -> str:
    """The whole report as Markdown tables."""
    data = report["data"]
    lines = [
        f"Data: {data['name']} (fingerprint {data['fingerprint'][:16]}), {data['n_files']} files, "
        f"{len(data['broken'])} of them unreadable. MAI {report['mai']}, {report['machine']}. Written by",
        "",
        f"    {command}",
        "",
        "Brackets: 95 % interval, bootstrap over "
        + _interval_words(report)
        + ". Thresholds were fixed before this set was seen; oracle figures choose theirs on it.",
    ]
    for protocol in report["plan"]["protocols"]:
        lines += ["", f"## Protocol {protocol}", "", *_protocol(report, protocol)]
    lines += _sweep(report)
    return "\n".join(lines) + "\n"


def _interval_words(report: dict[str, Any]) -> str:
    kinds = {cell["interval_over"] for own in report["detectors"].values() for cell in own["cells"]}
    return " and ".join(sorted(kinds)) + (
        " (the set names no sources: too narrow)" if kinds == {"pictures"} else ""
    )


def _protocol(report: dict[str, Any], protocol: str) -> list[str]:
    cells = base_cells(report, protocol)
    lines = ["| | " + " | ".join(cells) + " |", "|---|" + "---|" * len(cells)]
    lines.append("| synthetic / authentic pictures | "
                 + " | ".join(f"{c['n_synthetic']} / {c['n_authentic']}" for c in cells.values()) + " |")  # fmt: skip
    for key, title in ROWS:
        if any(key in cell for cell in cells.values()):
            lines.append(f"| {title} | " + " | ".join(three(cell.get(key)) for cell in cells.values()) + " |")
    for key, title in (
        ("worst_generator", "worst generator, AUROC"),
        ("worst_source", "worst authentic source, AUROC"),
    ):
        if any(key in cell for cell in cells.values()):
            told = [
                f"{c[key]['name']} {c[key]['auroc']:.2f} (n {c[key]['n']})" if key in c else ""
                for c in cells.values()
            ]
            lines.append(f"| {title} | " + " | ".join(told) + " |")
    lines.append("| leakage floors | " + " | ".join(floor_words(cell) for cell in cells.values()) + " |")
    lines.append(
        "| CPU seconds a file | "
        + " | ".join(f"{cell['cpu_seconds_per_file']:.4f}" for cell in cells.values())
        + " |"
    )
    first = next(iter(cells.values()), {})
    told_floors = [
        f"{name} {three(value)}"
        for name, value in first.get("floors", {}).items()
        if value and name != "sources"
    ]
    if told_floors:
        lines += ["", "Floors (AUROC): " + "; ".join(told_floors) + "."]
    return lines


def _sweep(report: dict[str, Any]) -> list[str]:
    names = report["plan"]["perturbations"]
    if not names:
        return []
    lines = ["", f"## Perturbations, protocol {report['plan']['sweep_on']}", ""]
    detectors = list(report["detectors"])
    heads = [f"{d}: AUROC | recall | flagged | label turned round | labelled" for d in detectors]
    lines += ["| perturbation | " + " | ".join(heads) + " |", "|---|" + "---|" * 5 * len(detectors)]
    for name in names:
        told = []
        for own in report["detectors"].values():
            cell: dict[str, Any] = next((c for c in own["cells"] if c["perturbation"] == name), {})
            stable = cell.get("stability", {})
            values = [cell.get(key, [None])[0] for key in ("auroc", "recall", "flagged")]
            told += [f"{v:.3f}" if v is not None else "" for v in values]
            told.append(three(stable.get("flipped")))
            told.append(
                f"{stable['labelled_before']:.2f} -> {stable['labelled_after']:.2f}" if stable else ""
            )
        lines.append(f"| {name} | " + " | ".join(told) + " |")
    return lines
