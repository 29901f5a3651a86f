"""What `mai doctor moondream` looks at: the reference's numbers, or the real weights at work."""

from __future__ import annotations

import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

from mai.errors import MaiError
from mai.moondream import golden

PHOTOGRAPH = Path(__file__).with_name("coffee.jpg")


def against_golden(folder: Path) -> list[dict[str, Any]]:
    """One finding a case: the largest absolute differences of image features, logits and loss.

    Raises:
        UsageError: the folder holds no golden numbers.
    """
    found = []
    for case in golden.check(folder):
        told = f"image features {case.vision:.2e}, logits {case.logits:.2e}, loss {case.loss:.2e}"
        found.append(
            {
                "name": f"case {case.case}",
                "ok": case.is_equal,
                "found": told if case.is_equal else f"{told}; over {golden.LIMIT:g}",
                "image_features": case.vision,
                "logits": case.logits,
                "loss": case.loss,
            }
        )
    return found


def fetched(source: str) -> list[dict[str, Any]]:
    """Fetch, hash, load, caption a photograph, time a score, look at memory; each a finding."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    dtype = "fp32" if device == "cpu" else "bf16"
    found: list[dict[str, Any]] = []

    def say(name: str, ok: bool, told: str) -> None:
        found.append({"name": name, "ok": ok, "found": told})
        print(f"{name}: {told}", file=sys.stderr, flush=True)

    from mai.moondream.chat import Chat
    from mai.moondream.load import load

    try:
        started = time.perf_counter()
        base = load(source, device=device, dtype=dtype)
        n = sum(p.numel() for p in base.model.parameters())
        say("load", True, f"{base.source}, {n / 1e6:,.1f} M parameters, {time.perf_counter() - started:.1f} s"
                          + (f" ({base.note})" if base.note else ""))  # fmt: skip
        for name, digest in base.files.items():
            say("sha256", True, f"{name} {digest}")
        chat = Chat(base)
        started = time.perf_counter()
        caption = chat.caption([_photograph()], length="short")[0]
        took = time.perf_counter() - started
        say(
            "caption",
            bool(caption),
            f"'{caption[:200]}' (the photograph shows a cup of coffee), {took:.1f} s",
        )
        started = time.perf_counter()
        score = chat.score([_photograph()])[0]
        say(
            "score",
            math.isfinite(score),
            f"{score:+.3f} in {time.perf_counter() - started:.2f} s, features from the cache",
        )
        if device == "cuda":
            free, total = torch.cuda.mem_get_info()
            say(
                "GPU memory",
                free > 2 * 2**30,
                f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free with it loaded",
            )
        else:
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
                2**30 if sys.platform == "darwin" else 2**20
            )
            say("memory", True, f"{used:.1f} GiB at most, on {device} in {dtype}")
    except MaiError as error:
        say("moondream", False, str(error))
    return found


def _photograph() -> Any:
    """uint8 RGB (320, 480, 3): a cup of coffee (source and licence: examples/README.md)."""
    import numpy as np
    from PIL import Image as PILImage

    with PILImage.open(PHOTOGRAPH) as picture:
        return np.asarray(picture.convert("RGB"))
