"""The same pass as processes of this machine, and as actors of a real local Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from pair_material import make_authentic
from test_engine import prepared

from mai.errors import MaiError
from mai.pairs.generate import Runtime
from mai.pairs.run import Pass
from mai.pairs.start import Engine, run_pass
from mai.pairs.verify import verify

pytestmark = pytest.mark.slow


def test_processes_share_a_run(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "ds", make_authentic(tmp_path / "photos", 6), 2, "tiny")
    ticks: list[int] = []
    outcome = run_pass(
        Pass(folder, "generate", threads=1), Engine("local", 2), lambda _: None, lambda: ticks.append(1)
    )
    assert (outcome.n_parts, outcome.n_left, outcome.is_stopped) == (3, 0, False)
    assert ticks
    assert (verify(folder).n_pairs, verify(folder).problems) == (6, [])


def test_the_error_of_a_worker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = prepared(tmp_path / "ds", make_authentic(tmp_path / "photos", 2), 2, "vae:taesd")
    given = Pass(folder, "generate", Runtime(weights=tmp_path), threads=1)
    with pytest.raises(MaiError, match="--weights DIR"):
        run_pass(given, Engine("local", 2), lambda _: None, lambda: None)
    assert run_pass(Pass(folder, "caption"), Engine("local", 2), lambda _: None, lambda: None).n_left == 0


def test_actors_share_a_run(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="the engine ray needs the extra 'scale'")
    folder = prepared(tmp_path / "ds", make_authentic(tmp_path / "photos", 8), 3, "tiny")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        given = Pass(folder, "generate", threads=1)
        outcome = run_pass(given, Engine("ray", 2), lambda _: None, lambda: None)
        assert (outcome.n_parts, outcome.n_left, outcome.is_stopped) == (3, 0, False)
        found = verify(folder, again=2)
        assert (found.n_pairs, found.n_missing, found.problems, found.n_same) == (8, 0, [], 2)
        again = run_pass(given, Engine("ray", 2), lambda _: None, lambda: None)
        assert again.n_parts == 0
    finally:
        ray.shutdown()
