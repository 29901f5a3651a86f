"""The frozen values that travel between the stages: Image, Evidence, Verdict, Record.

images/ makes an Image, detectors/ make Evidence, verdict/ makes a Verdict, pipeline.py joins them in a
Record. Nothing here imports anything of MAI, numpy is only a type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    """uint8 RGB, (H, W, 3), 0..255, sRGB, upright (EXIF orientation applied), C-contiguous."""

Status = Literal[
    "ok",
    "not_found",
    "not_readable",
    "not_a_file",
    "empty",
    "not_an_image",
    "unsupported",
    "truncated",
    "too_large",
    "timed_out",
    "detector_failed",
]
"""What happened to one image."""

Label = Literal["synthetic", "authentic", "inconclusive"]
"""The answer: AI-generated, no sign of AI, cannot tell."""

EvidenceStatus = Literal["ok", "absent", "failed", "skipped"]
"""ok: it said something. absent: it looked and found nothing. failed: could not look. skipped: did not, see note."""

Reason = Literal[
    "signed_provenance",
    "signed_capture",
    "declared_metadata",
    "declared_edit",
    "watermark",
    "above_threshold",
    "below_threshold",
    "low_evidence",
    "low_quality",
    "detectors_disagree",
    "provenance_conflict",
]
"""Machine-readable why of a verdict."""

STATUSES: tuple[str, ...] = get_args(Status)
LABELS: tuple[str, ...] = get_args(Label)
REASONS: tuple[str, ...] = get_args(Reason)
EVIDENCE_STATUSES: tuple[str, ...] = get_args(EvidenceStatus)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the file is, read from its header.

    Attributes:
        format: Pillow's name of the container (`JPEG`, `PNG`, `WEBP` ...), `array` for pixels in memory.
        width: columns of the upright picture, in pixels.
        height: rows of the upright picture, in pixels.
        n_bytes: size of the encoded file in bytes, None for pixels in memory.
        sha256: hex digest of the encoded bytes (of the pixel bytes for pixels in memory).
    """

    format: str
    width: int
    height: int
    n_bytes: int | None
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """The `image` object of a record (schema: mai/report/record.schema.json)."""
        return {
            "format": self.format,
            "width": self.width,
            "height": self.height,
            "bytes": self.n_bytes,
            "sha256": self.sha256,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One picture on its way through the detectors.

    Attributes:
        path: how people call it (a path, `shard.tar::member.jpg`, `<bytes>`), display form, not opened again.
        info: header facts.
        data: the encoded bytes, for detectors that read what the file says; None for pixels in memory.
        pixels: uint8 RGB (H, W, 3) 0..255, sRGB, upright; None until decoded, or where nobody needs all of them.
        reduced: the same, decoded at one of so many of its sides: 2, 4 or 8; of a JPEG only.
    """

    path: str
    info: ImageInfo
    data: bytes | None
    pixels: Pixels | None
    reduced: Mapping[int, Pixels] = field(default_factory=dict)

    @property
    def is_decoded(self) -> bool:
        """Whether a detector that looks at pixels has any to look at."""
        return self.pixels is not None or bool(self.reduced)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one detector found in one image. A detector never decides; verdict/ does.

    Attributes:
        detector: its name, the stem of its file in mai/detectors/.
        weights: name of the weights it used (`resnet_v1_0`), None if it has none.
        status: see EvidenceStatus.
        logit: raw network output, > 0 leans synthetic; None for a detector that makes statements.
        score: calibrated probability of synthetic, 0..1; None for a detector that makes statements.
        note: one sentence for people.
        details: JSON-able facts for programs.
    """

    detector: str
    weights: str | None = None
    status: EvidenceStatus = "ok"
    logit: float | None = None
    score: float | None = None
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """One element of the `evidence` list of a record."""
        return {
            "detector": self.detector,
            "weights": self.weights,
            "status": self.status,
            "logit": self.logit,
            "score": self.score,
            "note": self.note,
            "details": dict(self.details),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evidence:
        """Read what `to_dict` wrote."""
        return cls(**values)


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """What a network says about the places of one square window of a picture.

    Attributes:
        kind: `whole` (the window shows what the picture shows) or `native` (a crop at its own resolution).
        top: first row of the window, in pixels of the upright picture.
        left: its first column.
        side: rows and columns of the window.
        patches: float32 (h, w) logits of its places, row by row; their mean is the window's logit.
    """

    kind: Literal["whole", "native"]
    top: int
    left: int
    side: int
    patches: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The operating point of a verdict: two scores and the error rates they were chosen for.

    Attributes:
        synthetic: score at or above which an image is called synthetic.
        fpr: share of authentic calibration images at or above it, None when the user gave the threshold.
        authentic: score at or below which an image is called authentic.
        fnr: share of synthetic calibration images at or below it, None when the user gave the threshold.
    """

    synthetic: float
    fpr: float | None
    authentic: float
    fnr: float | None

    def to_dict(self) -> dict[str, Any]:
        """The `thresholds` object of a record."""
        return {"synthetic": self.synthetic, "fpr": self.fpr, "authentic": self.authentic, "fnr": self.fnr}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer about one image and why.

    Attributes:
        label: synthetic, authentic or inconclusive.
        score: calibrated probability of synthetic of the networks, 0..1; None where no network looked.
        reason: machine-readable why.
        thresholds: the operating point; None where no network looked.
        edited: True if the file declares an edit with AI, False if it declares that there was none.
        prior: share of synthetic images where the picture comes from, if the person gave one.
    """

    label: Label
    score: float | None
    reason: Reason
    thresholds: Thresholds | None
    edited: bool | None = None
    prior: float | None = None

    @property
    def posterior(self) -> float | None:
        """Probability of synthetic at the given prior; the score itself is for a prior of one half."""
        if self.prior is None or self.score is None:
            return None
        synthetic, authentic = self.score * self.prior, (1 - self.score) * (1 - self.prior)
        return synthetic / (synthetic + authentic)


SCHEMA = "mai.record/1"
"""Name and version of the record's schema, published as mai/report/record.schema.json."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of output: what happened to one image, the verdict on it, the evidence, the time it took.

    Attributes:
        path: display form; bytes that are not UTF-8 stand as `\\xNN`.
        status: `ok` or what went wrong.
        verdict: None unless status is `ok`.
        evidence: one entry a detector, in the order they were asked.
        image: header facts, None if the header could not be read.
        message: plain words about a status that is not `ok`, else None.
        seconds: wall-clock seconds a stage (`decode`, a detector's name).
        thumbnail: a small JPEG for pages, only where the Scanner was asked for it; no part of the row.
    """

    path: str
    status: Status
    verdict: Verdict | None = None
    evidence: tuple[Evidence, ...] = ()
    image: ImageInfo | None = None
    message: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    thumbnail: bytes | None = field(default=None, repr=False)

    @property
    def label(self) -> Label | None:
        """The verdict's label, None if the image was not judged."""
        return self.verdict.label if self.verdict else None

    @property
    def score(self) -> float | None:
        """The verdict's score, None if no network looked."""
        return self.verdict.score if self.verdict else None

    @property
    def reason(self) -> Reason | None:
        """The verdict's reason, None if the image was not judged."""
        return self.verdict.reason if self.verdict else None

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON values, in the order of the published schema."""
        verdict = self.verdict
        row = {
            "schema": SCHEMA,
            "path": self.path,
            "status": self.status,
            "label": self.label,
            "edited": verdict.edited if verdict else None,
            "score": self.score,
            "reason": self.reason,
            "thresholds": verdict.thresholds.to_dict() if verdict and verdict.thresholds else None,
            "evidence": [evidence.to_dict() for evidence in self.evidence],
            "image": self.image.to_dict() if self.image else None,
            "message": self.message,
            "seconds": {name: round(value, 6) for name, value in self.seconds.items()},
        }
        if verdict and verdict.prior is not None:  # only where asked for: the row stays that of mai.record/1
            row["posterior"] = {"prior": verdict.prior, "score": verdict.posterior}
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Record:
        """Read what `to_dict` wrote, also after JSON.

        Raises:
            KeyError, TypeError: it is no such row.
        """
        image, point = row["image"], row["thresholds"]
        verdict = None
        if row["status"] == "ok":
            prior = row.get("posterior", {}).get("prior")
            verdict = Verdict(
                row["label"],
                row["score"],
                row["reason"],
                Thresholds(**point) if point else None,
                row["edited"],
                prior,
            )
        if image is not None:
            image = ImageInfo(
                image["format"], image["width"], image["height"], image["bytes"], image["sha256"]
            )
        evidence = tuple(Evidence.from_dict(e) for e in row["evidence"])
        return cls(row["path"], row["status"], verdict, evidence, image, row["message"], row["seconds"])
