"""Moondream, batched and with cached features, against one picture and one question at a time over the same module.

    python benchmarks/moondream_speed.py [--threads 1]

A mid-size random configuration; both ways compute the same scores. Prints the ratio for 8 pictures
x 4 questions and x 1.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mai.moondream import tiny
from mai.moondream.chat import Chat
from mai.moondream.load import load

SIZES = {
    "vision": {"n_layers": 8, "dim": 256, "ff_dim": 1024, "n_heads": 8, "max_crops": 4, "proj_dim": 1024},
    "text": {"n_layers": 6, "dim": 512, "ff_dim": 2048, "n_heads": 8, "vocab": 33000},
}
QUESTIONS = ("Is this image AI-generated?", "What is it?", "Is it a photograph?", "Is it red or blue?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (400 + 20 * i, 500, 3), np.uint8) for i in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        base = load(tiny.build(Path(folder), sizes=SIZES))
        for n in (4, 1):
            started = time.process_time()
            plain = []
            for question in QUESTIONS[:n]:
                for picture in pictures:
                    plain += Chat(base).score([picture], question)  # a Chat of its own: nothing is cached
            slow = time.process_time() - started
            started = time.process_time()
            chat = Chat(base)
            fast_scores = [score for question in QUESTIONS[:n] for score in chat.score(pictures, question)]
            fast = time.process_time() - started
            off = float(np.abs(np.array(plain) - fast_scores).max())
            print(
                f"8 pictures x {n} questions: one at a time {slow:.2f} CPU s, ours {fast:.2f}, "
                f"ratio {slow / fast:.2f}, largest difference of scores {off:.1e}"
            )


if __name__ == "__main__":
    main()
