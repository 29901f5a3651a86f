"""Which way many files are judged: on this machine or on Ray, each file or those that look the same once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from mai.counting import counted
from mai.errors import UsageError
from mai.images.find import Found
from mai.machine import n_cpus
from mai.pipeline import Scanner
from mai.scanning.tune import Choice, choose
from mai.types import Record
from mai.weights.session import Device


def how(engine: str, group_duplicates: bool, n_gpus: float | None) -> None:
    """Refuse what does not go together.

    Raises:
        UsageError: see above.
    """
    if engine == "ray" and group_duplicates:
        raise UsageError("--group-duplicates works with --engine local: copies are known in one place only.")
    if n_gpus is not None and engine != "ray":
        raise UsageError("--gpus-per-worker goes with --engine ray.")


class Engine:
    """Judges many files.

    Args:
        scanner: of this process; workers make theirs of its settings.
        engine: `local` or `ray`.
        n_workers: processes or actors; None: what is quickest here.
        timeout_s: seconds that one file may take; None: as long as it likes.
        group_duplicates: see copies.py.
        device: where the networks of Ray's actors run.
        n_gpus: GPUs of each actor.
        total: files to come, as far as that is known.
        say: takes a sentence about how it is done; None: nobody wants to know.

    Attributes:
        kept: file in which copies.py may keep what it knows.
    """

    def __init__(
        self,
        scanner: Scanner,
        engine: str = "local",
        n_workers: int | None = None,
        timeout_s: float | None = None,
        group_duplicates: bool = False,
        device: Device = "cpu",
        n_gpus: float = 0.0,
        total: Callable[[], int | None] = lambda: None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._scanner, self._engine, self._n_workers, self._timeout_s = scanner, engine, n_workers, timeout_s
        self._grouped, self._device, self._n_gpus = group_duplicates, device, n_gpus
        self._total, self._say = total, say or (lambda _: None)
        self.kept: Path | None = None

    def run(self, founds: Iterable[Found]) -> Iterator[Record]:
        """Rows in input order.

        Raises:
            MaiError: see scan_local and scan_ray; never for a bad image.
        """
        settings = self._scanner.settings
        if self._engine == "ray":
            from mai.scanning.cluster import scan_ray

            own = replace(settings, device=self._device)
            return scan_ray(founds, own, self._n_workers, self._timeout_s, self._n_gpus)
        if self._grouped:
            from mai.scanning.copies import scan_grouped
            from mai.scanning.local import runner

            run = runner(settings, self._n_workers or n_cpus(), self._timeout_s, self._scanner)
            return scan_grouped(founds, self._scanner, run, self.kept)
        from mai.scanning.local import scan_local

        if self._n_workers is not None:
            self._say(f"{counted(self._n_workers, 'worker')}, as asked.")
        return scan_local(founds, settings, self._n_workers, self._scanner, self._timeout_s, self._choose)

    def _choose(self) -> Choice:
        choice = choose(self._scanner, self._total())
        self._say(f"{choice} ({choice.reason}).")
        return choice
