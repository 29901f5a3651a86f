"""A progress bar on stderr with images a second and time left; plain silence when stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(
    title: str, n_steps: int, start: int, shown: bool
) -> Iterator[Callable[[int, float, float], None]]:
    """Yield `tick(step, images_per_s, loss)`."""
    if not (shown and sys.stderr.isatty()):
        yield lambda step, rate, loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} images/s, loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=n_steps, completed=start, rate=0.0, loss=0.0)
        yield lambda step, rate, loss: bar.update(task, completed=step, rate=rate, loss=loss)
