"""Train `small64`, the diffusion model that ships with mai/pairs, from scratch on one CPU thread.

python benchmarks/train_small_generator.py --data ../shared/corpus --output RUN [--hours 1.2]

Stops after `--hours` of wall time (or at Ctrl-C), goes on where it stopped when run again, and writes
`small64.safetensors` (fp16, averaged weights), `losses.csv` and a sheet of samples. Trained on the authentic
pictures of the split train alone. Figures: docs/log.md.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage
from safetensors.torch import save_file

from mai.data.sources import read_set
from mai.images.decode import decode, read
from mai.images.find import Found
from mai.pairs import small
from mai.pairs.words import WORDS, looks, sentence, vector

CACHE_PX = 96
BATCH = 32


def pictures(data: str) -> tuple[np.ndarray, list[str | None]]:
    """Authentic whole views of split train: uint8 (N, 96, 96, 3), two squares of each, and their content."""
    squares, contents = [], []
    for row in read_set(data).select(split="train", views=["whole"]).rows:
        if row.label:
            continue
        pixels = decode(read(Found(row.file, Path(row.file), named=True))).pixels
        height, width = pixels.shape[:2]
        side = min(height, width)
        for part in (0.3, 0.7) if max(height, width) > 1.25 * side else (0.5,):
            top, left = round((height - side) * part), round((width - side) * part)
            square = PILImage.fromarray(pixels[top : top + side, left : left + side])
            squares.append(np.asarray(square.resize((CACHE_PX, CACHE_PX), PILImage.Resampling.LANCZOS)))
            contents.append(row.content)
    return np.stack(squares), contents


def batch(
    squares: np.ndarray, contents: list[str | None], rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Drawn squares of 64 px in -1..1 over SPREAD, flipped by chance, and the words they look like."""
    views, words = [], []
    for i in rng.integers(len(squares), size=BATCH):
        side = int(rng.integers(76, CACHE_PX + 1))
        top, left = rng.integers(CACHE_PX - side + 1, size=2)
        cut = PILImage.fromarray(squares[i][top : top + side, left : left + side])
        view = np.asarray(cut.resize((small.SIDE_PX, small.SIDE_PX), PILImage.Resampling.BILINEAR))
        view = view[:, ::-1] if rng.random() < 0.5 else view
        blank = rng.random() < 0.12
        row = vector(sentence(contents[i], looks(view)))
        row = row * (rng.random(len(row)) > 0.15)  # prompts say less than there is
        words.append(np.append(np.zeros(len(WORDS)) if blank else row, float(blank)))
        views.append(view)
    x = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x / small.SPREAD, torch.from_numpy(np.stack(words)).float()


def sheet(net: torch.nn.Module, path: Path, guidance: float = 2.0) -> None:
    """Samples of eight prompts, five seeds each."""
    prompts = ["A bright photo, blue, lighter-above.", "A dark photo, orange, detailed.", "A photo, green, detailed.",
               "A face, orange, lighter-middle.", "A dark face, grey.", "A bright product, grey, plain, darker-middle.",
               "A bright product, red, plain.", "A painting, orange."]  # fmt: skip
    rows = [np.hstack(small.sample(net, [p] * 5, range(5), 30, guidance)) for p in prompts]
    PILImage.fromarray(np.vstack(rows)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--lr", type=float, default=6e-4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given.output.mkdir(parents=True, exist_ok=True)
    squares, contents = pictures(given.data)
    print(f"{len(squares)} squares", flush=True)
    net = small.SmallFlow().to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.1f} M parameters", flush=True)
    average = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=given.lr, betas=(0.9, 0.98), weight_decay=0.01)
    step, spent = 0, 0.0
    saved = given.output / "state.pt"
    if saved.exists():
        state = torch.load(saved)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, spent = state["average"], state["step"], state["spent"]
    rng = np.random.default_rng([step, 1])
    budget, began, cpu = given.hours * 3600, time.time() - spent, time.process_time()
    losses: list[float] = []

    def keep() -> None:
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
        torch.save({**state, "step": step, "spent": time.time() - began}, saved.with_suffix(".part"))
        saved.with_suffix(".part").replace(saved)
        save_file(
            {k: v.half().contiguous() for k, v in average.items()}, given.output / "small64.safetensors"
        )

    try:
        while (done := (time.time() - began) / budget) < 1:
            warm, cool = min(1, (step + 1) / 150), 0.5 * (1 + math.cos(math.pi * min(1, done)))
            for group in optimizer.param_groups:
                group["lr"] = given.lr * warm * (0.03 + 0.97 * cool)
            x, words = batch(squares, contents, rng)
            t = torch.sigmoid(torch.randn(len(x)) * 1.1 + 0.2)
            noise = torch.randn_like(x)
            at = t[:, None, None, None]
            noisy = ((1 - at) * x + at * noise).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                said = net(noisy, t, words)
            loss = (said.float() - (noise - x)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            step += 1
            rate = min(0.999, (1 + step) / (10 + step))
            with torch.no_grad():
                for name, value in net.state_dict().items():
                    average[name].lerp_(value, 1 - rate)
            losses.append(loss.item())
            if step % 50 == 0:
                mean, used = sum(losses) / len(losses), time.process_time() - cpu
                print(f"step {step} {done:.0%} loss {mean:.4f} {used:.0f} CPU s", flush=True)
                with (given.output / "losses.csv").open("a", newline="") as file:
                    csv.writer(file).writerow([step, round(mean, 5), round(used)])
                losses.clear()
            if step % 100 == 0:
                keep()
    except KeyboardInterrupt:
        print("stopped; run it again to go on")
    keep()
    shown = small.SmallFlow()
    shown.load_state_dict(average)
    sheet(shown.eval(), given.output / "sheet.png")


if __name__ == "__main__":
    main()
