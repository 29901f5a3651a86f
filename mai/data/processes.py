"""Processes beside this one that decode pictures."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor


def pool(n_workers: int, initializer: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """A pool whose processes are not forks of this one.

    A fork of a process in which torch, OpenCV or onnxruntime has started threads inherits locks that nobody will
    release, and may hang for ever.

    Args:
        n_workers: how many.
        initializer: run in each at its start.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    return ProcessPoolExecutor(n_workers, mp_context=context, initializer=initializer)
