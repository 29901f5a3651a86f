"""Scores that were measured -> the report as plain JSON values (report.schema.json)."""

from __future__ import annotations

import datetime
import platform
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai import __version__
from mai.bench import floors, scorers
from mai.bench.figures import LEAST_GROUP, Pictures, measure, stability
from mai.data.facts import FileFacts
from mai.data.labelled import Row
from mai.errors import DataError
from mai.machine import n_cpus

if TYPE_CHECKING:
    from mai.bench.run import Run

SCHEMA = "mai.bench/1"


Base = tuple[Pictures, NDArray[np.float64]]
"""Pictures and their scores, unperturbed, which the perturbed ones are held against."""


class Assembly:
    """The report of a run: `Assembly(run).report()`."""

    def __init__(self, run: Run) -> None:
        self.run, self.plan = run, run.plan
        self._floors_of: dict[str, dict[str, Any]] = {}
        self._scores_of: dict[str, Any] = {}

    def report(self) -> dict[str, Any]:
        """All of it, as report.schema.json says."""
        run, plan = self.run, self.plan
        detectors: dict[str, Any] = {}
        maps: dict[str, Any] = {}
        everyone: list[scorers.Scorer | scorers.External] = [*run.scorers, *plan.externals]
        for scorer in everyone:
            cells, recall = self._cells(scorer)
            detectors[scorer.name] = {"key": scorer.key, "cells": cells}
            if plan.perturbations:
                maps[scorer.name] = self._generator_map(recall)
        return {
            "schema": SCHEMA,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "mai": __version__,
            "machine": f"{platform.machine()}, {n_cpus()} processors, Python {platform.python_version()}",
            "data": {
                "name": run.labelled.name,
                "fingerprint": run.labelled.fingerprint,
                "n_files": sum(len(rows) for rows in run.rows.values()),
                "broken": {run.labelled.relative(f): why for f, why in sorted(run.broken.items())},
            },
            "plan": {
                "protocols": list(plan.protocols),
                "perturbations": list(plan.perturbations),
                "sweep_on": plan.sweep_on,
                "seed": plan.seed,
                "n_draws": plan.n_draws,
            },
            "seconds": round(run.seconds, 2),
            "n_measured": run.n_measured,
            "memory_mb": _peak_mb(),
            "detectors": detectors,
            "scores": self._scores_of,
            "generator_map": maps,
        }

    def _cells(
        self, scorer: scorers.Scorer | scorers.External
    ) -> tuple[list[dict[str, Any]], dict[tuple[str, str], dict[str, float]]]:
        """A detector's cells, and by (perturbation, protocol) the share of each generator called synthetic."""
        plan = self.plan
        threshold = plan.thresholds.get(scorer.name, scorer.threshold)
        authentic = scorer.authentic if scorer.name not in plan.thresholds else None
        cells: list[dict[str, Any]] = []
        base: dict[str, Base] = {}
        recall: dict[tuple[str, str], dict[str, float]] = {}
        for protocol, perturbation in plan.cells():
            who, scores, seconds = self._scores(scorer, (protocol, perturbation))
            is_plain = perturbation == "none"
            n_draws = plan.n_draws if is_plain else min(200, plan.n_draws)
            cell = {
                "protocol": protocol,
                "perturbation": perturbation,
                **measure(scores, who, threshold, authentic, n_draws),
                "cpu_seconds_per_file": round(seconds, 5),
            }
            if plan.with_floors:
                cell |= self._against_floors(protocol, who, scores, cell.get("auroc"))
            if is_plain:
                base[protocol] = (who, scores)
                self._keep_scores(protocol, scorer.name, who, scores)
            elif protocol in base:
                cell["stability"] = _stability(base[protocol], (who, scores), threshold, authentic)
            recall[perturbation, protocol] = {
                g["name"]: g["called_synthetic"][0]
                for g in cell["groups"]
                if g["kind"] == "generator" and g["n"] >= LEAST_GROUP
            }
            if not is_plain:
                cell.pop("groups")
            cells.append(cell)
        return cells, recall

    def _keep_scores(self, protocol: str, name: str, who: Pictures, scores: NDArray[np.float64]) -> None:
        self._scores_of.setdefault(protocol, {})[name] = {
            "images": [self.run.labelled.relative(n) for n in who.names],
            "labels": who.labels.astype(int).tolist(),
            "sources": who.units,
            "scores": [round(float(s), 6) for s in scores],
        }

    def _against_floors(
        self, protocol: str, who: Pictures, scores: NDArray[np.float64], auroc: list[float] | None
    ) -> dict[str, Any]:
        """The floors beside a result. Those of files are the protocol's own, also beside perturbed pictures."""
        if protocol not in self._floors_of:
            self._floors_of[protocol] = self._file_floors(protocol, who)
        own = {**self._floors_of[protocol], "sources": floors.source_floor(scores, who)}
        within = floors.within(auroc, own)
        return {"floors": own, "within_floors": within, "within_floor": any(within.values())}

    def _scores(self, scorer: Any, cell: tuple[str, str]) -> tuple[Pictures, NDArray[np.float64], float]:
        """Pictures that have all their files' numbers, their scores, CPU seconds an image."""
        known = self.run.cache.read(scorer.key, *cell)
        raws: dict[str, dict[str, list[float]]] = {}
        rows: dict[str, Row] = {}
        lacking: set[str] = set()
        seconds = []
        for row in self.run.rows[cell[0]]:
            found = known.get((self.run.shas.get(row.file, ""), row.view or ""))
            if found is None or row.file in self.run.broken:
                lacking.add(row.image)
                continue
            rows.setdefault(row.image, row)
            raws.setdefault(row.image, {}).setdefault(row.view or "", []).append(found[0])
            seconds.append(found[1])
        names = [name for name in raws if name not in lacking or raws[name]]
        if not names:
            raise DataError(f"{scorer.name} has no score under {cell[0]}, {cell[1]}: {self._why_broken()}")
        facts = [rows[name] for name in names]
        has_sources = all(row.source for row in facts)
        who = Pictures(
            names,
            np.array([bool(row.label) for row in facts]),
            [row.source or row.image if has_sources else row.image for row in facts],
            [row.generator or "" for row in facts],
            has_sources,
        )
        return who, np.array([scorer.combine(raws[name]) for name in names]), float(np.mean(seconds))

    def _why_broken(self) -> str:
        return next(iter(self.run.broken.values()), "the detector answered for none")

    def _generator_map(self, recall: dict[tuple[str, str], dict[str, float]]) -> dict[str, Any]:
        on = self.plan.sweep_on
        names = [name for name in ("none", *self.plan.perturbations) if (name, on) in recall]
        generators = sorted({g for name in names for g in recall[name, on]})
        return {
            "perturbations": names,
            "generators": generators,
            "recall": [[recall[name, on].get(g) for name in names] for g in generators],
        }

    def _file_floors(self, protocol: str, who: Pictures) -> dict[str, Any]:
        """Floors of what the files show, one file a picture."""
        first: dict[str, tuple[FileFacts, tuple[float, ...]]] = {}
        for row in self.run.rows[protocol]:
            found = self.run.facts.get(row.file, {}).get(protocol)
            if found is not None and (row.image not in first or row.view == "whole"):
                first[row.image] = found
        chosen = [i for i, name in enumerate(who.names) if name in first]
        some = Pictures(
            [who.names[i] for i in chosen],
            who.labels[chosen],
            [who.units[i] for i in chosen],
            [who.generators[i] for i in chosen],
            who.has_sources,
        )
        if not chosen or some.labels.all() or not some.labels.any():
            return {}
        facts, sharp = zip(*(first[name] for name in some.names), strict=True)
        return floors.file_floors(list(facts), list(sharp), some)


def _stability(one: Base, two: Base, threshold: float, authentic: float | None) -> dict[str, Any]:
    """How labels turned round, on the pictures that both have."""
    place = {name: i for i, name in enumerate(one[0].names)}
    common = [i for i, name in enumerate(two[0].names) if name in place]
    before = one[1][[place[two[0].names[i]] for i in common]]
    return stability(before, two[1][common], threshold, authentic)


def _peak_mb() -> float:
    import resource

    return round(
        max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024,
        1,
    )
