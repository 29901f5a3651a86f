"""One is not many."""

from __future__ import annotations

from mai.counting import counted


def test_one_is_not_many() -> None:
    assert [counted(n, "epoch") for n in (0, 1, 2, 1234)] == [
        "0 epochs",
        "1 epoch",
        "2 epochs",
        "1,234 epochs",
    ]
    assert [counted(n, "batch", "batches") for n in (1, 2)] == ["1 batch", "2 batches"]
