"""Weighing networks together: the fit, thresholds from folds, what it is worth, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from labelled_pictures import make_set
from small_network import make_weights

pytest.importorskip("sklearn.linear_model", reason="measuring needs the extra 'train'")

from mai import weights
from mai.bench import fusion
from mai.cli import group
from mai.data.sources import read_set
from mai.errors import DataError, UsageError
from mai.measure.calibrate import DEFAULT_FNR
from mai.verdict import learn
from mai.verdict.fuse import find_fusion, load_fusions

RNG = np.random.default_rng(0)
LABELS = np.arange(600) % 2
SOURCES = [f"s{i // 6}" for i in range(600)]


def fitted(labels: np.ndarray, sources: list[str], **logits: np.ndarray) -> learn.Fused:
    names = [f"p{i}" for i in range(len(labels))]
    weights: Any = {
        name: type("W", (), {"name": f"{name}_v1", "config": {"sha256": name}})() for name in logits
    }
    return learn.fit_fusion(learn.Looked(names, labels, sources, logits, {}), weights, "made up")


def test_a_fusion_is_fitted_as_the_numbers_say() -> None:
    """Of two independent normal features the log odds weigh each by shift / variance."""
    both = fitted(
        LABELS, SOURCES, a=RNG.normal(0, 1, 600) + 1.5 * LABELS, b=RNG.normal(0, 2, 600) + 3.2 * LABELS
    )
    assert both.fusion is not None
    assert both.fusion.coefficients["a_v1"] == pytest.approx(1.5, abs=0.35)
    assert both.fusion.coefficients["b_v1"] == pytest.approx(0.8, abs=0.3)
    assert both.fusion.table.n_authentic == 300


def test_no_network_is_weighed_against_its_word_and_twins_share() -> None:
    good, useless = RNG.normal(0, 1, 600) + 2 * LABELS, RNG.normal(0, 1, 600) - 0.5 * LABELS
    against = fitted(LABELS, SOURCES, a=good, b=useless)
    assert (against.fusion, against.useless) == (None, ("b",))
    twins = fitted(LABELS, SOURCES, a=good, b=good).fusion
    assert twins is not None
    assert twins.coefficients["a_v1"] == pytest.approx(twins.coefficients["b_v1"], rel=1e-3)
    with pytest.raises(DataError, match="two pictures of each class"):
        fitted(np.ones(20, np.int64), [f"s{i}" for i in range(20)], a=good[:20], b=useless[:20])


def test_sources_that_cannot_be_divided_are_told() -> None:
    """One source of both classes and one more of each: where it is left out with another, one class is left."""
    labels = np.repeat([0, 1, 0, 1], (50, 50, 10, 10))
    sources = ["both"] * 100 + ["a"] * 10 + ["s"] * 10
    with pytest.raises(DataError, match="cannot be divided"):
        fitted(labels, sources, a=RNG.normal(0, 1, 120) + labels, b=RNG.normal(0, 1, 120) + labels)


def test_a_class_that_is_larger_does_not_weigh_more() -> None:
    """Three times as many authentic pictures of the same kind: the same fit, so scores stay those of a prior of 1/2."""
    a, b = RNG.normal(0, 1, 600) + 2 * LABELS, RNG.normal(0, 1, 600) + 2 * LABELS
    more = np.concatenate([np.arange(600), np.tile(np.flatnonzero(LABELS == 0), 2)])
    even = fitted(LABELS, SOURCES, a=a, b=b).fusion
    uneven = fitted(LABELS[more], [SOURCES[i] for i in more], a=a[more], b=b[more]).fusion
    assert even is not None
    assert uneven is not None
    assert uneven.offset == pytest.approx(even.offset, abs=0.5), "the log of three is 1.1"


def test_scores_of_the_table_come_from_fits_without_the_source() -> None:
    """A network that knows each source by heart looks right in sight, and is at chance out of fold."""
    labels = np.array([i // 15 % 2 for i in range(600)])
    sources = [f"{'as'[y]}{i // 15}" for i, y in enumerate(labels)]
    names = sorted(set(sources))
    learnt = np.eye(len(names))[[names.index(s) for s in sources]] * 8.0  # one 'network' a source
    factors, offset = learn._fit(learnt, labels)
    assert (((learnt @ factors + offset) > 0) == labels).mean() > 0.9
    outside = fitted(labels, sources, **{f"n{k}": learnt[:, k] for k in range(len(names))}).scores
    assert ((outside > 0.5) == labels).mean() < 0.7


def test_the_command_writes_what_the_verdict_reads(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", {"validation": 8, "calibration": 24})
    one = make_weights(tmp_path / "w" / "resnet_v1_0")
    two = make_weights(tmp_path / "w" / "pixel_v1_0", "pixel", slope=0.05)
    loaded = [weights.load(one), weights.load(two)]
    target = tmp_path / "fusion.json"
    call = ["weights", "fuse", str(one), str(two), "--data", str(data), "--output", str(target)]
    done = CliRunner().invoke(group, call, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Not written: no gain was shown" in done.output, "both see the same red"
    assert not target.exists()
    done = CliRunner().invoke(group, [*call, "--force", "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert told["measured"]["is_worth_it"] is False
    found = find_fusion(loaded, load_fusions(target))
    assert found is not None
    assert found.table.n_authentic == 24
    assert 0.5 < found.score({own.name: 3.0 for own in loaded}) <= 1
    assert found.fnr == DEFAULT_FNR
    with pytest.raises(UsageError, match="two or more different"):
        fusion.weigh([loaded[0]], read_set(str(data)))


def test_two_weights_of_one_architecture_stay_apart(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", {"calibration": 24})
    homes = [make_weights(tmp_path / "w" / f"resnet_v1_{k}") for k in (0, 1)]
    config = json.loads((homes[1] / "config.json").read_text())
    (homes[1] / "config.json").write_text(json.dumps({**config, "name": "resnet_v1_1"}))
    weighed = fusion.weigh([weights.load(home) for home in homes], read_set(str(data)))
    assert weighed.fusion is not None
    assert set(weighed.fusion.coefficients) == {"resnet_v1_0", "resnet_v1_1"}
    assert weighed.measured == {}, "nothing to measure on"


def test_a_network_that_adds_nothing_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", {"validation": 8, "calibration": 24})
    one = make_weights(tmp_path / "w" / "resnet_v1_0")
    against = make_weights(tmp_path / "w" / "pixel_v1_0", "pixel", slope=-0.1)
    target = tmp_path / "fusion.json"
    call = [
        "weights",
        "fuse",
        str(one),
        str(against),
        "--data",
        str(data),
        "--output",
        str(target),
        "--force",
    ]
    done = CliRunner().invoke(group, call, catch_exceptions=False)
    assert (done.exit_code, target.exists()) == (0, False)
    assert "Not written: pixel_v1_0 adds nothing to the others." in done.output


def test_a_file_that_holds_no_fusions_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "fusion.json"
    learn.write_entry(path, "one", {"offset": 1})
    learn.write_entry(path, "two", {"offset": 2})
    assert json.loads(path.read_text()) == {"one": {"offset": 1}, "two": {"offset": 2}}
    path.write_text("[]")
    with pytest.raises(DataError, match="holds no fusions"):
        learn.write_entry(path, "three", {})
    path.write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        learn.write_entry(path, "three", {})
    assert path.read_text() == "{"
