"""The device, precision and memory layout that train fastest here: measured, printed, kept in the checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mai.errors import TrainingError
from mai.training.recipe import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Speed:
    """How a step is computed.

    Attributes:
        device: `cpu`, `cuda` or `mps`.
        bf16: autocast to bfloat16.
        channels_last: pixels of a position side by side in memory.
        measured: `layout/precision` -> images a second, what the choice rests on.
    """

    device: str
    bf16: bool
    channels_last: bool
    measured: dict[str, float]

    def __str__(self) -> str:
        table = ", ".join(f"{name} {rate:.0f}" for name, rate in self.measured.items())
        chosen = (
            f"{'bf16' if self.bf16 else 'fp32'}, {'channels_last' if self.channels_last else 'contiguous'}"
        )
        return f"{self.device}: {chosen}" + (f" (images/s: {table})" if table else "")


def choose_device() -> str:
    """cuda, else mps, else cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def may_bf16(device: str) -> bool:
    """Whether bfloat16 runs in hardware. On a CPU without it, it is emulated and ten times slower than fp32."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def keep_memory() -> None:
    """Tell glibc's allocator to keep freed memory instead of giving it back to the kernel after every layer.

    The activations of a batch are tens of megabytes; by default glibc maps and unmaps them at each step, and the page
    faults cost as much as the network: 25 -> 40 images/s for `pixel` on two Zen 3 cores. Does nothing elsewhere.
    """
    import ctypes

    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the top is never given back
        libc.mallopt(-2, 2**26)  # M_TOP_PAD: grow in steps of 64 MB
    except (OSError, AttributeError):  # not glibc
        return


def choose(build: Callable[[], torch.nn.Module], recipe: Recipe) -> Speed:
    """How the steps of a recipe are computed: as it says, and measured where it leaves a choice.

    Raises:
        TrainingError: it asks for bf16 on a device that has none in hardware.
    """
    plan, device = recipe.run, choose_device()
    if plan.precision == "bf16" and not may_bf16(device):
        raise TrainingError(
            f"run.precision is bf16, which this device ({device}) only emulates, ten times slower than fp32. "
            "Set run.precision=auto."
        )
    layouts = {"auto": (False, True), "contiguous": (False,), "channels_last": (True,)}[plan.layout]
    precisions = {"auto": (False, True) if may_bf16(device) else (False,), "fp32": (False,), "bf16": (True,)}
    candidates = [(bf16, last) for bf16 in precisions[plan.precision] for last in layouts]
    if len(candidates) == 1:
        return Speed(device, *candidates[0], {})
    return measure(build, recipe.data.size_px, candidates)


def measure(
    build: Callable[[], torch.nn.Module],
    size_px: int,
    candidates: Sequence[tuple[bool, bool]],
    batch_size: int = 16,
) -> Speed:
    """Time a few training steps of each candidate and choose the fastest.

    Args:
        build: makes the network; it takes uint8 (B, H, W, 3).
        size_px: side of its views.
        candidates: (bf16, channels_last) to try.
        batch_size: views a step.
    """
    import torch

    device = choose_device()
    rates: dict[str, float] = {}
    best = (0.0, False, False)
    state = torch.random.get_rng_state()
    for bf16, last in candidates:
        model = build().to(device).train()
        if last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        views = torch.randint(0, 255, (batch_size, size_px, size_px, 3), dtype=torch.uint8, device=device)
        seconds = []
        for _ in range(
            5
        ):  # the first builds kernels; the fastest of the others is least disturbed by neighbours
            started = time.perf_counter()
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                loss = model(views).float().mean()
            loss.backward()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        rate = batch_size / min(seconds[1:])
        rates[f"{'channels_last' if last else 'contiguous'}/{'bf16' if bf16 else 'fp32'}"] = round(rate, 1)
        best = max(best, (rate, bf16, last))
    torch.random.set_rng_state(state)
    return Speed(device, best[1], best[2], rates)
