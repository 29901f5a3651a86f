"""A worker of the second pass that dies, or waits, at a chosen moment.

python dying_engine.py FOLDER writing    kill -9 of itself with half a part written
python dying_engine.py FOLDER named      kill -9 of itself when the part has its final name, and still its first
python dying_engine.py FOLDER waiting    half a part written, it waits until FOLDER/go is there, then works on
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from slow_engine import task

from mai.jobs import parts
from mai.jobs.work import Watch, work
from mai.pairs.generate_pass import GenerateTask


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    folder, moment = Path(sys.argv[1]), sys.argv[2]
    link, make = os.link, GenerateTask.make

    def link_and_die(part: Path, final: Path) -> None:
        link(part, final)
        die()

    def half(self: GenerateTask, shard: int, part: Path, partial: Path | None, watch: Watch) -> bool:
        part.write_bytes(b"PAR1 and no more")
        if moment == "writing":
            die()
        print("waiting", flush=True)
        while not (folder / "go").exists():
            time.sleep(0.02)
        return make(self, shard, part, partial, watch)

    if moment == "named":
        parts.os.link = link_and_die  # type: ignore[assignment]
    else:
        GenerateTask.make = half  # type: ignore[method-assign]
    print(work(folder, task(folder, 0.0)))


if __name__ == "__main__":
    main()
