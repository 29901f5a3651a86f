"""Models of the Hugging Face hub or of a folder, through transformers without torchvision: loading and preparation.

A folder is one that `save_pretrained` wrote. Errors of the hub's libraries become sentences: no network, gated,
no such repository, a partial download. A model that brings code of its own is refused: `trust_remote_code=False` is
said everywhere, as transformers would else ask at the terminal and take any `y` on standard input for a yes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mai.errors import WeightsError, require

MEAN_STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a network takes.

    Attributes:
        size_px: side of the square.
        mean: of each channel on 0..1.
        std: of each channel on 0..1.
    """

    size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice of transformers while a model is loaded."""
    logging = require("transformers.utils.logging", "vlm", "A transformers model")
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


def load_model(cls: Any, name: str, revision: str = "", **options: Any) -> Any:
    """`cls.from_pretrained`, in evaluation mode, fp32.

    Raises:
        WeightsError: it cannot be had, or is not whole.
    """
    torch = require("torch", "vlm", "A transformers model")

    def load() -> Any:
        return cls.from_pretrained(
            name, revision=revision or None, dtype=torch.float32, output_loading_info=True,
            trust_remote_code=False, **options,
        )  # fmt: skip

    with quiet():
        model, info = translated(load, name)
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise WeightsError(
            f"'{name}' lacks {len(missing)} of the network's weights, the first is '{missing[0]}': it is another "
            "network, or not trained for this."
        )
    return model.eval()


def load_processor(name: str, revision: str = "") -> Any:
    """The PIL image processor of a model.

    Raises:
        WeightsError: it cannot be had.
    """
    transformers = require("transformers", "vlm", "A transformers model")
    with quiet():
        return translated(
            lambda: transformers.AutoImageProcessor.from_pretrained(
                name, revision=revision or None, backend="pil", trust_remote_code=False
            ),
            name,
        )


def read_preparation(name: str, revision: str, config: Any) -> Preparation:
    """Size and normalisation from preprocessor_config.json; where there is none, the network's size and 0.5.

    Raises:
        WeightsError: the hub refuses.
    """
    transformers = require("transformers", "vlm", "A transformers model")

    def load() -> dict[str, Any]:
        try:
            told: dict[str, Any] = transformers.AutoImageProcessor.from_pretrained(
                name, revision=revision or None, backend="pil", trust_remote_code=False
            ).to_dict()
        except (OSError, ValueError):
            if not Path(name).is_dir() or (Path(name) / "preprocessor_config.json").is_file():
                raise
            told = {}
        return told

    with quiet():
        told = translated(load, name)
    own = getattr(config, "image_size", None)
    own = own[0] if isinstance(own, list | tuple) else own
    size = told.get("crop_size") if told.get("do_center_crop") else None
    size = size or told.get("size") or {}
    side = own or size.get("height") or size.get("shortest_edge") or 224
    return Preparation(
        int(side), tuple(told.get("image_mean") or MEAN_STD), tuple(told.get("image_std") or MEAN_STD)
    )


def translated(load: Callable[[], Any], name: str) -> Any:
    """Call `load`, and say in a sentence what the hub's libraries say in pages.

    Raises:
        WeightsError: always in place of their errors.
    """
    hub = require("huggingface_hub.errors", "vlm", "A model of the hub")
    try:
        return load()
    except MemoryError as error:
        raise WeightsError(f"There is not enough memory for '{name}'.") from error
    except Exception as error:  # OSError, ValueError, SafetensorError, HfHubHTTPError ...
        raise WeightsError(_sentence(error, name, hub)) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _sentence(error: BaseException, name: str, hub: Any) -> str:
    if Path(name).is_dir():
        return _sentence_of_folder(error, Path(name))
    causes = list(_chain(error))
    kinds = tuple(type(cause).__name__ for cause in causes)
    if any(isinstance(cause, hub.GatedRepoError) for cause in causes):
        return (
            f"'{name}' is gated: accept its terms on its page at the hub, then log in with `hf auth login`, and "
            "run this again."
        )
    if any(isinstance(cause, hub.RepositoryNotFoundError | hub.RevisionNotFoundError) for cause in causes):
        return (
            f"The hub has no model '{name}' (or no such revision of it), or it is private: check the name, or log in "
            "with `hf auth login`."
        )
    if any("Offline" in kind for kind in kinds) or _is_offline():
        return (
            f"'{name}' is not on this machine and HF_HUB_OFFLINE is set. Unset it, or give a folder that holds the "
            "model (`hf download` elsewhere, then copy it)."
        )
    if any(kind in _NO_NETWORK for kind in kinds):
        return (
            f"'{name}' is not on this machine and the hub cannot be reached. Connect, or give a folder that holds "
            "the model (`hf download` elsewhere, then copy it)."
        )
    return f"'{name}' cannot be loaded: {first_line(error)}"


_NO_NETWORK = frozenset(
    {"ConnectError", "ConnectTimeout", "ReadTimeout", "ConnectionError", "ProxyError", "LocalEntryNotFoundError",
     "ConnectionRefusedError", "NewConnectionError", "gaierror"}
)  # fmt: skip


def _is_offline() -> bool:
    constants = require("huggingface_hub.constants", "vlm", "A model of the hub")
    return bool(constants.HF_HUB_OFFLINE)


def _sentence_of_folder(error: BaseException, folder: Path) -> str:
    if not (folder / "config.json").is_file():
        return f"The folder '{folder}' holds no config.json: it is no model that `save_pretrained` wrote."
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        import json

        try:
            wanted = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            wanted = set()
        missing = sorted(part for part in wanted if not (folder / str(part)).is_file())
        if missing:
            return f"'{folder}' is a partial download: {', '.join(missing)} missing. Fetch it again."
    if not weights:
        return f"The folder '{folder}' holds no weights (model.safetensors): fetch it again, whole."
    return f"'{folder}' cannot be loaded, it may be damaged or a partial download: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def state_digest(model: Any) -> str:
    """Sha256 hex digest of the names, kinds and numbers of a torch module."""
    torch = require("torch", "vlm", "A transformers model")
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
