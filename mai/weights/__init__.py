"""Weights that ship: one folder a version, `<architecture>_v<major>_<minor>/`, and how they are read.

model.onnx    the network; input `views` uint8 RGB (B, H, W, 3), output `logit` float32 (B,)
config.json   format "mai.weights/1": see Weights
README.md     the card
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mai.errors import MaiError, UnknownNameError, UsageError, WeightsError
from mai.measure.calibrate import Calibration, OperatingTable

FORMAT = "mai.weights/1"
FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Weights:
    """Trained numbers with all that is needed to use them.

    Attributes:
        name: folder name, `resnet_v1_0`.
        architecture: `resnet`, `pixel` ...
        folder: where it lies.
        preprocessing: how a picture becomes the network's views, read by the architecture's detector.
        calibration: logit of a picture -> score.
        table: measured thresholds.
        fpr: false-positive rate of the default operating point.
        fnr: false-negative rate of the default operating point.
        config: the whole config.json.
    """

    name: str
    architecture: str
    folder: Path
    preprocessing: Mapping[str, Any]
    calibration: Calibration
    table: OperatingTable
    fpr: float
    fnr: float
    config: Mapping[str, Any]

    @property
    def config_digest(self) -> str:
        """Short hash of config.json: of the network's hash, its views and its calibration."""
        text = json.dumps(dict(self.config), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def model(self) -> Path:
        """Path of the network's file: ONNX, or what its engine reads (`engine` and `file` in config.json)."""
        return self.folder / str(self.config.get("file", "model.onnx"))

    def model_bytes(self) -> bytes:
        """The network file's bytes, checked against the hash that config.json states.

        Raises:
            WeightsError: the file is missing or is not the one that the card speaks of.
        """
        try:
            data = self.model.read_bytes()
        except OSError as error:
            raise WeightsError(
                f"The weights {self.name} lack {self.model}: {error.strerror}. Copy the whole folder, export the "
                "weights again (mai export), or reinstall mai-identifier if they came with it."
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.config["sha256"]:
            raise WeightsError(
                f"{self.model} is damaged or was replaced: sha256 {digest[:12]}..., config.json says "
                f"{self.config['sha256'][:12]}... Reinstall mai-identifier, or export the weights again."
            )
        return data


def available() -> dict[str, Path]:
    """Name -> folder of all weights in the package."""
    return {path.parent.name: path.parent for path in sorted(FOLDER.glob("*/config.json"))}


def family(name: str) -> str:
    """What weights are called before their version: `pixel` of `pixel_v1_2`, `pixel_fast` of `pixel_fast_v1_0`."""
    return name.rsplit("_v", 1)[0]


def families() -> set[str]:
    """The families of all weights in the package."""
    return {family(name) for name in available()}


def latest(architecture: str) -> str:
    """Name of the newest shipped weights of a family: an architecture, or a name beside it.

    Raises:
        WeightsError: none ship.
    """
    found = [name for name in available() if family(name) == architecture]
    if not found:
        raise WeightsError(
            f"No weights of '{architecture}' are in this installation. Train and export them: "
            f"mai train {architecture} --data DATA && mai export {architecture} RUN"
        )
    return max(found, key=_version)


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.rsplit("_v", 1)[1].split("_") if part.isdigit())


def load(source: str | Path) -> Weights:
    """Read weights by name (`resnet_v1_0`), by architecture (`resnet`: the newest) or by folder.

    Raises:
        UnknownNameError: no weights of that name.
        UsageError: there is no such folder.
        WeightsError: the folder's config.json is missing or cannot be used.
    """
    known = available()
    has_config = (Path(source) / "config.json").is_file()
    if isinstance(source, str) and source in known:
        folder = known[source]
    elif isinstance(source, str) and source in families():
        folder = known[latest(source)]
    elif has_config:
        folder = Path(source)
    else:
        raise _no_weights(source)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if config["format"] != FORMAT:
            raise WeightsError(
                f"{folder}/config.json has format {config['format']!r}; this MAI reads {FORMAT!r}. "
                "Export the weights again with this MAI (mai export), or use the MAI that made them."
            )
        for key in ("name", "architecture", "sha256"):
            if not isinstance(config[key], str):
                raise ValueError(f"{key} is no text")
        return Weights(
            name=config["name"],
            architecture=config["architecture"],
            folder=folder,
            preprocessing=config["preprocessing"],
            calibration=Calibration(**config["calibration"]),
            table=OperatingTable.from_dict(config["thresholds"]),
            fpr=config["default"]["fpr"],
            fnr=config["default"]["fnr"],
            config=config,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder}/config.json cannot be read as weights: {_told(error)}. It is damaged or was changed by hand: "
            "export the weights again (mai export), or reinstall mai-identifier if they came with it."
        ) from error


def _told(error: Exception) -> str:
    """What is wrong with a config.json, without the names of Python's exceptions."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return (error.strerror if isinstance(error, OSError) else str(error).rstrip(".")) or type(error).__name__


def _no_weights(source: str | Path) -> MaiError:
    """Why a source is no weights, for the person who named it: a folder, or a name."""
    path, text = Path(source), os.fspath(source)
    if path.exists():
        what = (
            "is a file, not a folder of weights"
            if not path.is_dir()
            else "holds no weights: it has no config.json"
        )
        if (path / "best.pt").is_file() or (path / "last.pt").is_file():
            return WeightsError(
                f"'{text}' is a run of mai train, no weights yet. Export it: "
                f"mai export ARCH {text} --data DATA --output FOLDER"
            )
        return WeightsError(
            f"'{text}' {what}. Give a folder that `mai export` made, or a name of `mai weights list`."
        )
    if isinstance(source, Path) or path.parent != Path() or os.sep in text or text.startswith(("~", ".")):
        return UsageError(
            f"There is no folder '{text}'. Give a folder that `mai export` made, or a name of `mai weights list`."
        )
    return UnknownNameError("weights", text, available().keys() | families())
