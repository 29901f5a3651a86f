"""The command as a person runs it, for tests outside tests/cli: arguments in, code and text out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mai.cli import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def run_mai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str | Path) -> Ran:
    """Run the entry point in this process."""
    monkeypatch.setattr(sys, "argv", ["mai", *map(str, args)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main()
    captured = capsys.readouterr()
    code = done.value.code
    assert "Traceback" not in captured.err
    return Ran(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)
