"""Weighing networks together: the fit against scikit-learn, thresholds from folds, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

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
from mai.verdict.fuse import find_fusion, load_fusions

RNG = np.random.default_rng(0)
LABELS = RNG.random(600) < 0.4
LOGITS = np.stack([2 * LABELS + RNG.normal(0, 1, 600), 5 * LABELS + RNG.normal(0, 5, 600)], 1)
SOURCES = [f"{'s' if y else 'a'}{i % 20}" for i, y in enumerate(LABELS)]


def test_the_fit_is_that_of_scikit_learn() -> None:
    factors, offset = fusion.fit(LOGITS, LABELS, 4000)
    from sklearn.linear_model import LogisticRegression

    theirs = LogisticRegression(C=1e4, class_weight="balanced").fit(LOGITS, LABELS)
    # The pull that shares weight between alike networks moves it a little.
    assert factors == pytest.approx(theirs.coef_[0], rel=0.25)
    ours = LOGITS @ factors + offset
    assert np.corrcoef(ours, theirs.decision_function(LOGITS))[0, 1] > 0.995


def test_no_network_is_weighed_against_its_word_and_twins_share() -> None:
    against = np.stack([LOGITS[:, 0], -LOGITS[:, 0]], 1)
    factors, _ = fusion.fit(against, LABELS)
    assert factors[1] == 0
    twins, _ = fusion.fit(np.stack([LOGITS[:, 0]] * 2, 1), LABELS)
    assert twins[0] == pytest.approx(twins[1])
    with pytest.raises(DataError, match="both classes"):
        fusion.fit(LOGITS[LABELS], LABELS[LABELS])


def test_scores_of_the_table_come_from_fits_without_the_source() -> None:
    """A network that knows each training source by heart looks right in sight, and is at chance out of fold."""
    sources = np.array(SOURCES)
    names = sorted(set(SOURCES))
    learnt = np.eye(len(names))[[names.index(s) for s in sources]] * 8.0  # one 'network' a source
    factors, offset = fusion.fit(learnt, LABELS)
    inside = (learnt @ factors + offset > 0) == LABELS
    outside = fusion.out_of_fold(learnt, LABELS, SOURCES)
    assert inside.mean() > 0.9
    assert ((outside > 0.5) == LABELS).mean() < 0.7


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
    with pytest.raises(UsageError, match="two or more different"):
        fusion.fused([loaded[0]], read_set(str(data)))
