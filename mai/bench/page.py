"""The benchmark's report as one self-contained HTML page: figures in words and tables, plots as embedded PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mai.bench.tables import ROWS, WORST, base_cells, floor_words, three
from mai.errors import require
from mai.report import page
from mai.report.thumbnail import data_url

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem }
.plots img { background: #fff; border-radius: .4rem; width: 100% }
.scroll { overflow-x: auto } .scroll table { font-size: .92rem }
.strip img { width: 100%; border-radius: .3rem; display: block; margin-bottom: .2rem }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: .7rem }
.strip figure { margin: 0 } .strip figcaption { font-size: .8rem;
  color: var(--soft) } .warn { color: var(--synthetic); font-weight: 600 }
"""
COLOURS = ("#0b6e99", "#c4742b", "#7aa95c", "#8a5aa8", "#b3261e", "#444444")


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture to show.

    Attributes:
        kind: why, in words.
        name: of its file.
        score: what the detector gave it.
        picture: JPEG.
        heat: JPEG of the picture under the network's heat map, None where there is none.
    """

    kind: str
    name: str
    score: float
    picture: bytes
    heat: bytes | None = None


Pictures = dict[str, dict[str, list[Shown]]]
"""Protocol -> detector -> pictures to show, made by `mai.bench.examples`."""


def html(report: dict[str, Any], command: str, pictures: Pictures | None = None) -> str:
    """The page.

    Args:
        report: what `Run.result` returned.
        command: that made it.
        pictures: best and worst pictures to show.
    """
    data = report["data"]
    parts = [
        page.head("MAI benchmark", STYLE, ""),
        f"<header><h1>Benchmark on {page.text(data['name'])}</h1>",
        f"<p class=soft>{page.text(', '.join(report['detectors']))} · {page.text(report['created'])}</p>",
        "</header><main>",
        page.section("What was measured", [_facts(report, command)], "what"),
    ]
    for protocol in report["plan"]["protocols"]:
        body = [_words(report, protocol), _table(report, protocol), _plots(report, protocol)]
        body += _strips(pictures, protocol)
        parts.append(page.section(f"Protocol: {protocol}", body, f"p-{protocol}"))
        parts.append(page.section(f"Groups, {protocol}", [_groups(report, protocol)], f"g-{protocol}"))
    if report["plan"]["perturbations"]:
        parts.append(
            page.section("Perturbations", [_sweep_table(report), _sweep_plots(report)], "perturbations")
        )
    parts.append(
        "</main><footer><p>A verdict is a signal, not a proof. Figures hold for pictures like these.</p></footer>"
    )
    parts.append(page.foot(""))
    return "".join(parts)


def _short(key: str) -> str:
    """A detector's key without its view plan, which report.json holds: name and hash of the weights."""
    return key.partition(":{")[0][:60]


def _facts(report: dict[str, Any], command: str) -> str:
    data = report["data"]
    rows = [
        ("command", command),
        ("data", f"{data['name']}, fingerprint {data['fingerprint'][:16]}, {data['n_files']} files"),
        ("left out", f"{len(data['broken'])} files that could not be read" if data["broken"] else "nothing"),
        ("detectors", ", ".join(f"{n} ({_short(own['key'])})" for n, own in report["detectors"].items())),
        ("took", f"{report['seconds']:.0f} seconds, {report['n_measured']:,} new scores"),
        ("memory", f"{report['memory_mb']:.0f} MB at most a process"),
        ("machine", f"{report['machine']}; MAI {report['mai']}"),
    ]  # fmt: skip
    broken = "".join(
        f"<li>{page.text(f)}: {page.text(why)}</li>" for f, why in list(data["broken"].items())[:50]
    )
    return page.facts(rows) + (
        f"<details><summary>Files left out</summary><ul>{broken}</ul></details>" if broken else ""
    )


def _words(report: dict[str, Any], protocol: str) -> str:
    said = []
    for name, cell in base_cells(report, protocol).items():
        text = f"{page.text(name)}: "
        if "auroc" in cell:
            text += (
                "of two pictures, one of each kind, it scores the AI-generated one higher "
                f"{cell['auroc'][0]:.0%} of the time. "
            )
        if "recall" in cell:
            text += f"At its threshold it finds {cell['recall'][0]:.0%} of the AI-generated pictures"
        if "flagged" in cell:
            text += (
                f"{' and' if 'recall' in cell else 'It'} flags {cell['flagged'][0]:.1%} of the authentic ones"
            )
        text += "."
        if cell.get("within_floor"):
            under = [n for n, is_in in cell["within_floors"].items() if is_in]
            told = f"Within the leakage floor of {', '.join(under)}: this is no result."
            text += f' <span class="warn">{page.text(told)}</span>'
        if cell["interval_over"] == "pictures":
            text += " The set names no sources: intervals are over pictures, and too narrow."
        said.append(f"<li>{text}</li>")
    return f"<ul>{''.join(said)}</ul>"


def _table(report: dict[str, Any], protocol: str) -> str:
    cells = base_cells(report, protocol)
    rows: list[tuple[str, list[str]]] = [
        (
            "synthetic / authentic pictures",
            [f"{c['n_synthetic']} / {c['n_authentic']}" for c in cells.values()],
        ),
        ("sources", [f"{c['n_synthetic_sources']} / {c['n_authentic_sources']}" for c in cells.values()]),
    ]
    rows += [
        (title, [three(cell.get(key)) for cell in cells.values()])
        for key, title in ROWS
        if any(key in cell for cell in cells.values())
    ]
    for key, title in WORST:
        told = [
            f"{c[key]['name']}: {c[key]['auroc']:.2f} (n {c[key]['n']})" if key in c else ""
            for c in cells.values()
        ]
        rows.append((title, told))
    first = next(iter(cells.values()), {})
    for name in first.get("floors", {}):
        rows.append((f"floor: {name}, AUROC", [three(c.get("floors", {}).get(name)) for c in cells.values()]))
    rows.append(("against the floors", [floor_words(c).replace("**", "") for c in cells.values()]))
    rows.append(("CPU seconds a file", [f"{c['cpu_seconds_per_file']:.4f}" for c in cells.values()]))
    return _as_table(["", *cells], rows)


def _as_table(heads: list[str], rows: list[tuple[str, list[str]]]) -> str:
    head = "".join(f"<th scope=col>{page.text(h)}</th>" for h in heads)
    body = "".join(
        f"<tr><th scope=row>{page.text(name)}</th>{''.join(f'<td>{page.text(v)}</td>' for v in values)}</tr>"
        for name, values in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _groups(report: dict[str, Any], protocol: str) -> str:
    parts = []
    for name, cell in base_cells(report, protocol).items():
        rows = [
            (f"{g['name']} ({g['kind']}, {g['label']})",
             [str(g["n"]), three(g["called_synthetic"]), "" if g["auroc"] is None else f"{g['auroc']:.2f}"])
            for g in cell["groups"]
        ]  # fmt: skip
        table = _as_table(["group", "n", "called synthetic", "AUROC against the other class"], rows)
        parts.append(f"<details><summary>{page.text(name)}: {len(rows)} groups</summary>{table}</details>")
    return "".join(parts)


def _sweep_table(report: dict[str, Any]) -> str:
    rows = []
    for name in report["plan"]["perturbations"]:
        told = []
        for own in report["detectors"].values():
            cell: dict[str, Any] = next((c for c in own["cells"] if c["perturbation"] == name), {})
            stable = cell.get("stability", {})
            told += [three(cell.get("auroc")), three(cell.get("recall")), three(cell.get("flagged"))]
            told.append(three(stable.get("flipped")))
        rows.append((name, told))
    heads = [
        f"{d}: {what}"
        for d in report["detectors"]
        for what in ("AUROC", "recall", "flagged", "label turned round")
    ]
    return _as_table(["perturbation", *heads], rows)


def _png(draw: Callable[[Figure], None], width: float = 5.2, height: float = 4.0) -> str:
    require("matplotlib", "bench", "Drawing the report")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    draw(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return data_url(buffer.getvalue(), "png")


def _plots(report: dict[str, Any], protocol: str) -> str:
    scores = report["scores"].get(protocol, {})
    made = []
    two_classes = {n: s for n, s in scores.items() if 0 < sum(s["labels"]) < len(s["labels"])}
    if two_classes:
        made.append(("ROC", _png(partial(_roc, two_classes))))
        made.append(("Reliability", _png(partial(_reliability, two_classes))))
    for name, own in scores.items():
        made.append((f"Scores of {name}", _png(partial(_histogram, own, name))))
    images = "".join(
        f'<img alt="{page.text(title)}, {page.text(protocol)}" src="{url}">' for title, url in made
    )
    return f'<div class="plots">{images}</div>'


def _roc(scores: dict[str, Any], figure: Figure) -> None:
    from sklearn.metrics import roc_curve

    axes = figure.subplots()
    for colour, (name, own) in zip(COLOURS * 9, scores.items(), strict=False):
        fpr, tpr, _ = roc_curve(own["labels"], own["scores"])
        axes.plot(fpr, tpr, color=colour, label=name)
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=0.8)
    axes.set(xlabel="authentic flagged", ylabel="synthetic caught", title="ROC")
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="lower right")


def _reliability(scores: dict[str, Any], figure: Figure) -> None:
    axes = figure.subplots()
    for colour, (name, own) in zip(COLOURS * 9, scores.items(), strict=False):
        s, y = np.array(own["scores"]), np.array(own["labels"], bool)
        weight = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
        bins = np.minimum((s * 10).astype(int), 9)
        total = np.bincount(bins, weight, 10)
        seen = total > 0.005
        mean = np.bincount(bins, weight * s, 10)[seen] / total[seen]
        axes.plot(mean, np.bincount(bins, weight * y, 10)[seen] / total[seen], "o-", color=colour, label=name)
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=0.8)
    axes.set(
        xlabel="score",
        ylabel="share synthetic (classes balanced)",
        title="Reliability",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(frameon=False)


def _histogram(own: dict[str, Any], name: str, figure: Figure) -> None:
    axes = figure.subplots()
    s, y = np.array(own["scores"]), np.array(own["labels"], bool)
    bins = np.linspace(0, 1, 31).tolist()
    axes.hist(s[~y].tolist(), bins, alpha=0.6, color="#0b6e99", label=f"authentic (n {(~y).sum()})")
    axes.hist(s[y].tolist(), bins, alpha=0.6, color="#c4742b", label=f"synthetic (n {y.sum()})")
    axes.set(xlabel="score", ylabel="pictures", title=f"Scores of {name}")
    axes.legend(frameon=False)


def _sweep_plots(report: dict[str, Any]) -> str:
    names = report["plan"]["perturbations"]
    curves = _png(partial(_curves, report, names), 11, 2.8 + _below(names))
    made = [f'<img alt="Robustness" src="{curves}">']
    made += [
        f'<img alt="Generators and perturbations, {page.text(name)}" src="{url}">'
        for name in report["detectors"]
        if (url := _generator_map(report, name))
    ]
    return "".join(made)


def _curves(report: dict[str, Any], names: list[str], figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    for colour, (detector, own) in zip(COLOURS * 9, report["detectors"].items(), strict=False):
        cells = {c["perturbation"]: c for c in own["cells"] if c["protocol"] == report["plan"]["sweep_on"]}
        order = [n for n in ("none", *names) if n in cells]
        for axes, key in ((left, "auroc"), (right, "recall")):
            values = [cells[n].get(key, [np.nan])[0] for n in order]
            axes.plot(range(len(order)), values, "o-", color=colour, label=detector, markersize=3)
            axes.set_xticks(range(len(order)), order, rotation=60, ha="right", fontsize=7)
    left.set(title="AUROC")
    right.set(title="Recall at the fixed threshold")
    left.legend(frameon=False)


def _generator_map(report: dict[str, Any], detector: str) -> str | None:
    table = report.get("generator_map", {}).get(detector)
    if not table or not table["generators"]:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        image = axes.imshow(np.array(table["recall"], float), vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axes.set_xticks(
            range(len(table["perturbations"])), table["perturbations"], rotation=60, ha="right", fontsize=7
        )
        axes.set_yticks(range(len(table["generators"])), table["generators"], fontsize=7)
        axes.set_title(f"{detector}: share called synthetic")
        figure.colorbar(image)

    return _png(draw, 10, 0.9 + 0.22 * len(table["generators"]) + _below(table["perturbations"]))


def _below(names: list[str]) -> float:
    """Height in inches that names of 7 points, turned by 60 degrees, take below a plot."""
    return 0.2 + 0.052 * max((len(name) for name in names), default=0)


def _figure(shown: Shown) -> str:
    heat = f'<img alt="heat map" src="{data_url(shown.heat)}">' if shown.heat else ""
    return (
        f'<figure><img alt="" src="{data_url(shown.picture)}">{heat}'
        f"<figcaption>{shown.score:.2f} {page.text(shown.name)}</figcaption></figure>"
    )


def _strips(pictures: Pictures | None, protocol: str) -> list[str]:
    parts = []
    for detector, shown in (pictures or {}).get(protocol, {}).items():
        for kind in dict.fromkeys(each.kind for each in shown):
            figures = "".join(_figure(each) for each in shown if each.kind == kind)
            parts.append(
                f'<h3>{page.text(detector)}: {page.text(kind)}</h3><div class="strip">{figures}</div>'
            )
    return parts
