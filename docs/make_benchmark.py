"""Measure all networks that ship on a labelled set and write the result into docs/benchmark.md.

    python docs/make_benchmark.py ../shared/corpus/manifest.csv [--workers 2] [--output DIR] [--robustness-on N]

Two runs of `mai bench run` on the validation split: `--sweep stability` on the web view where the set has one, and
`--sweep robustness` on aligned pictures, on all or on N of each class, spread over the set. What was measured before is
read from the cache. DIR gets both reports whole.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("benchmark.md")
BEGIN, END = "<!-- results: written by docs/make_benchmark.py -->", "<!-- end of results -->"


def shipped() -> list[str]:
    """Architectures whose weights are in the package, the default first."""
    from mai import weights

    names = {name.rsplit("_v", 1)[0] for name in weights.available()}
    return sorted(names, key=lambda name: (name != "pixel", name))


def run(data: str, sweep: str, output: Path, workers: int, more: list[str]) -> dict[str, Any]:
    """One run of the command; its report."""
    command = ["bench", "run", "--data", data, "--detectors", ",".join(shipped()), "--sweep", sweep,
               "--workers", str(workers), "--output", str(output), *more]  # fmt: skip
    print("mai", shlex.join(command), flush=True)
    subprocess.run([sys.executable, "-m", "mai", *command], check=True, stdout=subprocess.DEVNULL)
    loaded: dict[str, Any] = json.loads((output / "report.json").read_text("utf-8"))
    return loaded


def section(reports: list[dict[str, Any]], fewer: list[str]) -> str:
    """The reports as Markdown, one below the other, without the paths of this machine."""
    from mai import weights
    from mai.bench.tables import markdown

    names = ", ".join(weights.latest(name) for name in shipped())
    lines = [f"Weights: {names}. Measured on {date.today().isoformat()}."]
    for report in reports:
        sweep = "stability" if report is reports[0] else "robustness"
        told = f"mai bench run --data DATA --detectors {','.join(report['detectors'])} --sweep {sweep}"
        if report is not reports[0] and fewer:
            lines.append(f"Fewer pictures: `{shlex.join(['mai', 'bench', 'run', *fewer])}`.")
        text = markdown(report, told).replace("\n## ", "\n#### ")
        if report is not reports[0]:  # the figures without perturbation stand above already
            text = text[text.index("\n#### Perturbations") :] if "\n#### Perturbations" in text else ""
        lines.append(text.strip())
    return "\n\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs") / "benchmark")
    parser.add_argument("--limit", help="As of mai bench run: only a part, to try this out.")
    parser.add_argument(
        "--robustness-on", help="Only so many pictures of each class in the robustness sweep."
    )
    asked = parser.parse_args()
    more = ["--limit", asked.limit] if asked.limit else []
    fewer = ["--limit", asked.robustness_on, "--protocols", "aligned"] if asked.robustness_on else more
    reports = [
        run(asked.data, "stability", asked.output / "stability", asked.workers, more),
        run(asked.data, "robustness", asked.output / "robustness", asked.workers, fewer),
    ]
    before, found, rest = PAGE.read_text("utf-8").partition(BEGIN)
    if not found or END not in rest:
        raise SystemExit(f"{PAGE} has no place for results: {BEGIN} ... {END}")
    PAGE.write_text(f"{before}{BEGIN}\n\n{section(reports, fewer)}\n\n{END}{rest.partition(END)[2]}", "utf-8")
    print(f"Written to {PAGE}")


if __name__ == "__main__":
    main()
