"""Files on their way to the workers: read ahead in a thread, so that a slow source never holds up finished rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from multiprocessing import Pipe
from threading import Condition, Thread

from mai.images.find import Found

MAX_BYTES = 64 * 2**20
"""Bytes of shard members read ahead; one member alone may be more."""


class Feed:
    """The next few of many files.

    Args:
        founds: read lazily, in a thread of its own.
        n_ahead: files read ahead, 1 or more.

    Attributes:
        signal: connection that is readable when there is something to take, or the end has come.
    """

    def __init__(self, founds: Iterable[Found], n_ahead: int) -> None:
        self._founds = founds
        self._n_ahead = n_ahead
        self._files: deque[Found] = deque()
        self._n_bytes = 0
        self._state = Condition()
        self._is_closed = self._is_over = False
        self._error: BaseException | None = None
        self.signal, self._bell = Pipe(duplex=False)
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for found in self._founds:
                with self._state:
                    self._state.wait_for(self._has_room)
                    if self._is_closed:
                        return
                    self._files.append(found)
                    self._n_bytes += len(found.data or b"")
                    if len(self._files) == 1:  # else it has rung already
                        self._bell.send_bytes(b"!")
        except BaseException as error:  # told where the files are taken
            self._error = error
        finally:
            with self._state:
                self._is_over = True
                if not self._is_closed:
                    self._bell.send_bytes(b"!")

    def _has_room(self) -> bool:
        return self._is_closed or (len(self._files) < self._n_ahead and self._n_bytes < MAX_BYTES)

    @property
    def is_over(self) -> bool:
        """Nothing is left to take."""
        with self._state:
            return self._is_over and not self._files and self._error is None

    def take(self, n_files: int, n_bytes: int) -> list[Found]:
        """Files that are there by now; never waits.

        Args:
            n_files: most files.
            n_bytes: bytes in memory after which no further file is added.

        Raises:
            What the source raised, once all before it is taken.
        """
        taken: list[Found] = []
        size = 0
        with self._state:
            while self._files and len(taken) < n_files and size < n_bytes:
                taken.append(self._files.popleft())
                size += len(taken[-1].data or b"")
            self._n_bytes -= size
            if taken and not self._files and not self._is_over:
                self.signal.recv_bytes()
            if not taken and not self._files and self._error is not None:
                error, self._error = self._error, None
                raise error
            self._state.notify()
        return taken

    def close(self) -> None:
        """Read no further. A source that waits for something is left to itself."""
        with self._state:
            if self._is_closed:
                return
            self._is_closed = True
            self._state.notify()
            self.signal.close()
            self._bell.close()
