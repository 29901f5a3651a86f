"""`--engine ray` on a real Ray of this machine: two nodes, one of them killed, and the local engine's rows."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_network import make_weights, picture

from mai.errors import MaiError, UsageError
from mai.images.find import Found, find
from mai.pipeline import ScanSettings
from mai.scanning.local import scan_local
from mai.types import Record

ray = pytest.importorskip("ray", reason="ray is not installed (extra scale)")

from mai.scanning import cluster as engine  # noqa: E402

MEMORY = 80 * 2**20


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ScanSettings:
    return ScanSettings(("resnet",), weights=make_weights(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pictures")
    for i in range(150):
        (home / f"{i:03}.png").write_bytes(picture(5 * i % 256))
    (home / "900.jpg").write_bytes(picture(60, "JPEG")[:300])
    (home / "901.jpg").write_bytes(b"")
    return home


@pytest.fixture(scope="module")
def nodes() -> Iterator[object]:
    """A cluster of two nodes of one CPU each; the second can be killed."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    # As in a cluster of one's own, the nodes have what the tests' path has.
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    ray.init(
        address=cluster.address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def plain(records: list[Record]) -> list[Record]:
    """Rows without the time they took."""
    return [replace(record, seconds={}) for record in records]


class Deadly(bytes):
    """Bytes that kill the process that unpickles them, as a decoder's crash would."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


def test_a_lost_node_changes_no_row(nodes, folder: Path, settings: ScanSettings) -> None:  # type: ignore[no-untyped-def]
    second = nodes.add_node(num_cpus=1, object_store_memory=MEMORY)
    nodes.wait_for_nodes()
    wanted = plain(list(scan_local(find([folder]), settings, 1)))
    records = engine.scan_ray(find([folder] * 3), settings)
    got = [next(records)]
    until = time.monotonic() + 120
    while ray.available_resources().get("CPU", 0) and time.monotonic() < until:
        got.append(next(records))  # until there is an actor on each node
        time.sleep(0.05)
    assert len(got) < 3 * len(wanted) - 50
    nodes.remove_node(second, allow_graceful=False)  # SIGKILL to all of its processes
    got += records
    assert plain(got) == wanted * 3


@pytest.mark.soak  # five actors are started for it
def test_a_file_that_kills_its_actor_gets_a_row_and_the_rest_go_on(nodes, settings: ScanSettings) -> None:  # type: ignore[no-untyped-def]
    some = [Found(str(i), data=picture(9 * i), named=True) for i in range(6)]
    some[3] = Found("3", data=Deadly(b"x"), named=True)
    records = list(engine.scan_ray(some, settings, 1))
    assert [r.path for r in records] == [str(i) for i in range(6)]
    assert [r.status for r in records] == ["ok"] * 3 + ["detector_failed"] + ["ok"] * 2


def test_wrong_options_are_said_once(nodes, settings: ScanSettings) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="Did you mean 'resnet'"):
        list(engine.scan_ray([Found("a", data=b"x")], ScanSettings(("resnte",)), 1))
    with pytest.raises(UsageError, match="no GPU"):
        list(engine.scan_ray([Found("a", data=b"x")], settings, n_gpus=0.5))
    with pytest.raises(UsageError, match="above 0"):
        list(engine.scan_ray([], settings, timeout_s=0))


def test_no_cluster_at_the_address_is_a_sentence(
    settings: ScanSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("nobody there")))
    with pytest.raises(MaiError, match=r"No Ray cluster can be reached at 10\.0\.0\.1"):
        list(engine.scan_ray([], settings, address="10.0.0.1:6379"))


class Hanging(bytes):
    """Bytes that hold up the process that unpickles them, as a decoder in an endless loop would."""

    def __reduce__(self) -> tuple[object, ...]:
        return time.sleep, (600,)


@pytest.mark.soak
def test_a_file_that_hangs_gets_its_row_and_the_scan_goes_on(settings: ScanSettings, nodes: object) -> None:
    founds = [Found(f"{i}", data=picture(5 * i), named=True) for i in range(8)]
    founds[3] = replace(founds[3], data=Hanging(b"x"))
    start = time.monotonic()
    records = list(engine.scan_ray(founds, settings, 2, timeout_s=5))
    assert time.monotonic() - start < 200
    assert [r.path for r in records] == [str(i) for i in range(8)]
    assert [r.status for r in records] == ["ok"] * 3 + ["timed_out"] + ["ok"] * 4
    assert "longer than the 5 s" in (records[3].message or "")
