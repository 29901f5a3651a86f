"""Plots of the benchmark's page: names of any length fit below them."""

from __future__ import annotations

import warnings

import pytest

pytest.importorskip("matplotlib", reason="the benchmark's plots need the extra 'bench'")

from mai.bench.page import _generator_map, _sweep_plots


def test_long_names_of_chains_leave_room_for_the_plot() -> None:
    names = ["jpeg-95+crop-0.05+resize-0.75+webp-80+jpeg-60", "jpeg-70"]
    cells = [
        {"perturbation": n, "protocol": "web", "auroc": [0.8], "recall": [0.3]} for n in ("none", *names)
    ]
    report = {
        "plan": {"perturbations": names, "sweep_on": "web"},
        "detectors": {"pixel": {"cells": cells}},
        "generator_map": {
            "pixel": {"generators": ["g1"], "perturbations": names, "recall": [[0.1, 0.9]]},
        },
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib only warns where axes collapse to nothing
        assert _sweep_plots(report).count("<img") == 2
        assert _generator_map(report, "pixel") is not None
