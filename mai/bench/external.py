"""Other programs in the benchmark: paths on stdin, `path<TAB>score` on stdout, timed as CPU seconds."""

from __future__ import annotations

import math
import resource
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mai.bench.scorers import External
from mai.errors import DataError, UsageError

TIMEOUT_S = 3600.0


def run(external: External, files: Sequence[Path]) -> tuple[dict[Path, float], float]:
    """Score files by another program.

    Args:
        external: which.
        files: absolute paths, one a line on its stdin.

    Returns:
        Path -> score of those that it answered for with a finite number, and CPU seconds (user and system).

    Raises:
        UsageError: the command cannot be started.
        DataError: it failed, or answered for no file.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            shlex.split(external.command),
            input="".join(f"{file}\n" for file in files),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--external {external.name}: '{external.command}' cannot be started: {error}."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DataError(f"--external {external.name} did not end in {TIMEOUT_S:.0f} seconds.") from error
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing on stderr"]
        raise DataError(f"--external {external.name} ended with exit code {done.returncode}: {said[0]}")
    wanted = {str(file): file for file in files}
    scores: dict[Path, float] = {}
    for line in done.stdout.splitlines():
        path, tab, value = line.rpartition("\t")
        if tab and path in wanted:
            try:
                score = float(value)
            except ValueError:
                continue
            if math.isfinite(score):
                scores[wanted[path]] = score
    if not scores:
        raise DataError(
            f"--external {external.name} answered for none of {len(files)} files. Wanted on stdout: path<TAB>score."
        )
    return scores, cpu_s
