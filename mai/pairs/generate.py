"""One interface for all generators: requests in, pictures or sentences out; memory that runs out halves the batch."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mai.errors import UsageError
from mai.pairs.registry import Entry, Plan

if TYPE_CHECKING:
    from mai.pairs.settings import Edit
    from mai.types import Pixels


@cache
def package_versions() -> str:
    """What the pictures depend on, `python 3.11.7, torch 2.13.0 ...`."""
    from mai import __version__

    found = [f"mai {__version__}", f"python {platform.python_version()}"]
    for package in ("torch", "diffusers", "transformers", "numpy", "pillow"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


@dataclass(frozen=True, slots=True)
class Request:
    """A picture to be made.

    Attributes:
        id: of the row.
        caption: the prompt.
        seed: of the row.
        width: in pixels.
        height: in pixels.
        authentic: uint8 RGB (height, width, 3), the other member as it is stored.
        mask: uint8 (height, width), 255 where it is painted anew; None where the whole is.
    """

    id: str
    caption: str
    seed: int
    width: int
    height: int
    authentic: Pixels
    mask: Pixels | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a request.

    Attributes:
        pixels: uint8 RGB (H, W, 3); None where there is none.
        status: of filters.STATUSES.
        message: the sentence about a status that is not `ok`.
        cost: in US dollars.
    """

    pixels: Pixels | None
    status: str = "ok"
    message: str | None = None
    cost: float = 0.0


class Backend(Protocol):
    """A generator at work."""

    revision: str
    """What was loaded: commit, hash of the weights, or the API's word for it."""

    def make(self, requests: Sequence[Request]) -> list[Made]:
        """One picture a request, all of one size. May raise torch.OutOfMemoryError."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where a generator runs: no part of what it makes, so every machine may have its own.

    Attributes:
        device: `cpu`, `cuda`, `mps`; empty: the best there is.
        memory_gb: of the GPU, see registry.plan_for.
        load: name of a way to load.
        weights: folder with weights, in place of the hub.
        batch: pictures at once.
        hosted: (url, key_variable) of the hosted generators that the person named; no other is asked, see
            open_generator.
    """

    device: str = ""
    memory_gb: float | None = None
    load: str | None = None
    weights: Path | None = None
    batch: int = 1
    hosted: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Generator:
    """A backend with what is said of it in each row.

    Attributes:
        entry: of the registry.
        backend: at work.
        load: name of the way it was loaded.
        strength: of edits.
        batch: pictures at once; halved for good when memory runs out.
        n_halved: how often that was.
    """

    entry: Entry
    backend: Backend
    load: str = "full"
    strength: float | None = None
    batch: int = 1
    n_halved: int = 0
    versions: str = field(default_factory=package_versions)

    def make(self, requests: Sequence[Request]) -> list[Made]:
        """One picture a request; a failure is a status, never an exception.

        Memory that runs out halves the batch, until one picture alone does not fit.
        """
        out: list[Made] = []
        start = 0
        while start < len(requests):
            part = requests[start : start + self.batch]
            try:
                out += self.backend.make(part)
            except Exception as error:  # of many libraries; the row says what it was
                if is_out_of_memory(error) and len(part) > 1:
                    self.batch = max(1, len(part) // 2)
                    self.n_halved += 1
                    _free()
                    continue
                if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
                    raise  # a full disk is no fault of the row
                if len(part) > 1:  # which of them it was
                    out += [made for one in part for made in self._alone(one)]
                else:
                    out.append(_failed(error))
            start += len(part)
        return out

    def _alone(self, request: Request) -> list[Made]:
        try:
            return self.backend.make([request])
        except Exception as error:
            return [_failed(error)]


def _failed(error: Exception) -> Made:
    words = str(error).strip().splitlines()
    what = "There is not enough memory for one picture" if is_out_of_memory(error) else type(error).__name__
    return Made(None, "generator_failed", f"{what}: {words[0][:200] if words else 'no message'}")


def is_out_of_memory(error: BaseException) -> bool:
    """True where memory, of the GPU or of torch, ran out."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError)


def _free() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_of(runtime: Runtime) -> str:
    """The device to run on."""
    import torch

    if runtime.device:
        return runtime.device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def open_generator(entry: Entry, edit: Edit, strength: float, runtime: Runtime) -> Generator:
    """Load a generator.

    A hosted one gets captions, and a key from the environment. Entries come from a folder of pairs, which may be
    anybody's, so its word alone is not enough: the person names the generator, see Runtime.hosted.

    Args:
        entry: which.
        edit: what it does with the authentic image.
        strength: of edits, 0..1.
        runtime: where and how.

    Raises:
        UsageError: the generator cannot do that edit, does not fit into the memory, or is hosted and was not named.
        WeightsError: weights are missing.
        MissingExtraError: a package of the extra `pairs` is missing.
    """
    must_edit(entry, edit)
    plan = Plan("full", False, "none")
    if entry.kind in {"diffusers", "tiny"}:
        from mai.pairs.diffusion import Diffusion
        from mai.pairs.registry import plan_for

        plan = plan_for(entry, runtime.memory_gb, runtime.load)
        backend: Backend = Diffusion(entry, edit, strength, plan, device_of(runtime), runtime.weights)
    elif entry.kind == "autoencoder":
        from mai.pairs.autoencoder import RoundTrip

        backend = RoundTrip(entry, device_of(runtime), runtime.weights)
    elif entry.kind == "http":
        from mai.pairs.http_images import HttpImages

        must_be_named(entry, runtime)
        backend = HttpImages(entry)
    else:
        from mai.pairs.small import Small

        backend = Small(entry, device_of(runtime))
    return Generator(entry, backend, plan.name, strength if edit != "none" else None, max(1, runtime.batch))


def must_edit(entry: Entry, edit: Edit) -> None:
    """Refuse a generator that cannot do an edit.

    Raises:
        UsageError: it is no diffusers pipeline.
    """
    if edit != "none" and entry.kind not in {"diffusers", "tiny"}:
        raise UsageError(f"{entry.name} cannot start from an image: --edit needs a diffusers pipeline.")


def must_be_named(entry: Entry, runtime: Runtime) -> None:
    """Refuse a hosted generator that only the folder's settings name, see open_generator.

    Raises:
        UsageError: the person did not name it.
    """
    if (entry.url, entry.key_variable) not in runtime.hosted:
        raise UsageError(_unnamed(entry))


def _unnamed(entry: Entry) -> str:
    key = f" and the key in {entry.key_variable}" if entry.key_variable else ""
    name = re.split("[/?#]", entry.url.partition("//")[2], maxsplit=1)[0]
    host = name.rpartition("@")[2][-80:]  # a long name before an @ would be all of the url that is shown
    return (
        f"The settings of this folder would send captions{key} to {entry.url[:80]}, which is the "
        f"host {host} (generator '{entry.name}'). "
        f"What comes with a folder does not decide that: if you want it, name it with --generator {entry.name}, or "
        "the TOML file that it is of."
    )


Opener = Callable[[Entry], Generator]


def described(generator: Generator, request: Request) -> dict[str, Any]:
    """The struct `generator` of a row."""
    entry = generator.entry
    return {
        "name": entry.name,
        "id": entry.id,
        "revision": generator.backend.revision,
        "seed": request.seed,
        "steps": entry.steps,
        "guidance": entry.guidance,
        "guidance_argument": entry.guidance_argument if entry.kind in {"diffusers", "tiny"} else None,
        "width": request.width,
        "height": request.height,
        "strength": generator.strength,
        "dtype": entry.dtype,
        "load": generator.load,
        "licence": entry.licence,
        "note": entry.note or None,
        "versions": generator.versions,
    }
