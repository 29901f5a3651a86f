"""Damaged manifests of every kind: an answer, bounded time, never an exception.

`pytest -m soak tests/unit/detectors/test_c2pa_fuzz.py` runs for MAI_SOAK_S seconds (600 unless set).
"""

from __future__ import annotations

import os
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signing import OPENED, TAKEN, photo, signed

from mai.detectors import _c2pa_claims, _c2pa_store
from mai.detectors.base import DetectorSettings, load
from mai.types import Image, ImageInfo

pytest.importorskip("cryptography", reason="certificates for signed test files are made with cryptography")
pytest.importorskip("c2pa")

INFO = ImageInfo("JPEG", 320, 240, 1, "")
LONGEST_S = 5.0
"""Far above the milliseconds that a file takes: a machine that does other work must not fail the test."""

CONTAINERS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF")


def seeds() -> list[bytes]:
    files = [signed(container=container) for container in CONTAINERS]
    files.append(signed([OPENED], below=signed(TAKEN)))
    files.append(signed(remote="http://127.0.0.1:9/x.c2pa"))
    return files + [photo(container) for container in CONTAINERS]


def spoiled(data: bytes, random_: random.Random) -> bytes:
    """A few bytes changed, repeated, cut out or put in; nearly always inside the store, where there is one."""
    broken = bytearray(data)
    found = _c2pa_store.find(data)
    start = max(data.find(found.data[:64]), 0) if found and found.data else 0
    end = min(start + len(found.data), len(data)) if found and found.data else len(data)
    for _ in range(random_.randint(1, 6)):
        at = random_.randrange(start, end) if random_.random() < 0.9 else random_.randrange(len(broken))
        at = min(at, len(broken) - 1)
        kind = random_.randrange(5)
        if kind == 0:
            broken[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            broken[at : at + 4] = random_.choice((b"\xff" * 4, b"\0" * 4, b"\0\0\0\1", random_.randbytes(4)))
        elif kind == 2:
            del broken[at : at + random_.randrange(1, 200)]
        elif kind == 3:
            broken[at:at] = random_.randbytes(random_.randrange(1, 200))
        else:
            broken[at:at] = broken[at : at + random_.randrange(1, 2000)]
        if not broken:
            broken = bytearray(1)
    return bytes(broken)


def check(data: bytes) -> None:
    start = time.perf_counter()
    (evidence,) = DETECTOR.look([Image("x", INFO, data, None)])
    assert time.perf_counter() - start < LONGEST_S
    assert evidence.status in ("ok", "absent", "failed")
    if evidence.status == "ok":
        assert evidence.details["state"] in ("trusted", "valid_untrusted", "invalid", "remote_only")
    if evidence.details.get("declares"):
        assert evidence.details["state"] == "valid_untrusted"  # no root of these tests is on the bundled list


DETECTOR = load("c2pa", DetectorSettings())


def test_damaged_files_get_an_answer() -> None:
    random_ = random.Random(7)
    for data in seeds():
        for _ in range(15):
            check(spoiled(data, random_))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=400), st.sampled_from([photo(c)[:64] for c in CONTAINERS]))
def test_any_bytes_after_a_head_are_walked(tail: bytes, head: bytes) -> None:
    for cut in (4, 12, 20, 64):
        found = _c2pa_store.find(head[:cut] + tail)
        assert found is None or found.data is None or found.data in head[:cut] + tail
    assert _c2pa_store.too_much(tail) is None  # far below any bound


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["a", "b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("manifests", "active_manifest", "a", "b", "ingredients", "relationship", "assertions"),
                    *("label", "data", "actions", "action", "digitalSourceType", "validation_results"),
                    *(
                        "ingredientDeltas",
                        "validationDeltas",
                        "success",
                        "failure",
                        "code",
                        "url",
                        "metadata",
                    ),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["manifests", "active_manifest", "validation_results"]), JSON))
def test_any_report_is_interpreted(report: dict[str, object]) -> None:
    claims = _c2pa_claims.read(report, "valid_untrusted")
    assert claims.state in ("valid_untrusted", "invalid")


def test_reports_that_refer_back_end() -> None:
    opened = {"relationship": "parentOf", "active_manifest": "b"}
    back = {"relationship": "parentOf", "active_manifest": "a"}
    report = {
        "active_manifest": "a",
        "manifests": {"a": {"ingredients": [opened]}, "b": {"ingredients": [back]}},
    }
    assert _c2pa_claims.read(report, "trusted").is_cut


@pytest.mark.soak
def test_damaged_files_for_minutes() -> None:
    end = time.monotonic() + float(os.environ.get("MAI_SOAK_S", "600"))
    random_, files, n = random.Random(int(time.time())), seeds(), 0
    while time.monotonic() < end:
        check(spoiled(random_.choice(files), random_))
        n += 1
    print(f"{n:,} damaged files")
