"""What a C2PA manifest store says about an image: its origin, what was done to it, and who says so.

Works on the report of the C2PA library (`Reader.json()`). Follows the ingredients: an editor's manifest says how the
picture was changed, the one of the file that it opened says how it came into being. The words are those of C2PA's
asset rubrics (github.com/c2pa-org/conformance-public, asset-rubrics, 2026-08-06); the source types are IPTC's
(http://cv.iptc.org/newscodes/digitalsourcetype/).

A declaration is as good as the weakest signature on the way to it: a trusted editor's file that was made from an
untrusted one does not make the untrusted claim trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["trusted", "valid_untrusted", "invalid"]
RANK: tuple[State, ...] = ("trusted", "valid_untrusted", "invalid")

MAX_DEPTH = 64
"""Manifests followed from the file's own down to the oldest; deeper ones are said to be there."""

MAX_MANIFESTS = 200
"""Manifests followed in one file."""

MAX_LISTED = 20
"""Actions and ingredients told in the evidence; their true number stands beside them."""

MAX_TEXT = 120
"""Characters of a text that somebody else wrote."""

SYNTHETIC = frozenset({"trainedAlgorithmicMedia", "trainedAlgorithmicData"})
COMPOSITE = frozenset({"compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"})
CAPTURE = frozenset(
    {
        *(
            "digitalCapture",
            "computationalCapture",
            "compositeCapture",
            "negativeFilm",
            "positiveFilm",
            "print",
        ),
        *("minorHumanEdits", "algorithmicallyEnhanced"),
    }
)
MAY_CONTAIN_AI = frozenset({"composite", "digitalArt", "screenCapture"})

ORIGINS: dict[str, str] = {
    **dict.fromkeys(SYNTHETIC, "fully_genai"),
    **dict.fromkeys(COMPOSITE, "partly_genai"),
    **dict.fromkeys(CAPTURE, "captured"),
    "composite": "composition_may_contain_genai",
    "screenCapture": "screen_capture_may_contain_genai",
    "digitalCreation": "non_genai_creation",
    "algorithmicMedia": "algorithmic",
    "empty": "blank_canvas",
}
"""IPTC source type of the creation -> the rubrics' word; any other is `unknown`."""

NAMESPACES = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/",
    "https://cv.iptc.org/newscodes/digitalsourcetype/",
    "http://c2pa.org/digitalsourcetype/",
)

GENERATIVE = "com.adobe.generative-ai"
"""Adobe's assertion before actions had a source type (2023): the model, its version, perhaps the prompt."""

DISCLOSURE = "c2pa.ai-disclosure"
"""C2PA 2.4: which model had a part in the picture; how great a part is left to the source types."""

METADATA = ("c2pa.metadata", "cawg.metadata", "stds.iptc", "stds.iptc.photo-metadata")
"""Assertions that carry IPTC's fields under the signature."""
_SOURCE_TYPES = ("Iptc4xmpExt:DigitalSourceType", "iptcExt:DigitalSourceType")

INCEPTION = frozenset({"c2pa.created", "c2pa.opened"})
NOT_EDITORIAL = frozenset(
    {
        *(
            "c2pa.converted",
            "c2pa.published",
            "c2pa.repackaged",
            "c2pa.transcoded",
            "c2pa.resized.proportional",
        ),
        *("c2pa.enhanced", "c2pa.edited.metadata", "c2pa.watermarked", "c2pa.watermarked.bound"),
        *("c2pa.watermarked.unbound", "c2pa.redacted"),
    }
)
"""Actions that leave what is seen as it is (asset rubrics, globals-actions.yml)."""


@dataclass(slots=True)
class Claims:
    """What the manifests on the way say together.

    Attributes:
        origin: the rubrics' word for how the picture came into being.
        source_type: the IPTC term that says so, None where none does.
        state: the weakest signature from the file's own manifest to the one that says so.
        declared_by: label of that manifest.
        ai_edits: actions that changed what is seen with generative AI.
        doubts: why an untouched origin cannot be taken for granted (custom actions, parts of unknown origin).
        is_complete: each manifest on the way says that it lists all its actions.
        actions: `action`, `source_type`, `software`, `when` of each, the file's own first.
        ingredients: `title`, `relationship`, `state`, `source_type` of each.
        is_cut: there were more manifests than are followed, or one refers back to itself.
    """

    origin: str = "unknown"
    source_type: str | None = None
    state: State = "trusted"
    declared_by: str | None = None
    ai_edits: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    is_complete: bool = True
    actions: list[dict[str, str]] = field(default_factory=list)
    ingredients: list[dict[str, str]] = field(default_factory=list)
    is_cut: bool = False


def read(report: Mapping[str, Any], state: State) -> Claims:
    """Interpret the library's report.

    Args:
        report: `Reader.json()`, parsed.
        state: of the file's own manifest.
    """
    return _Walk(report, state).claims


def clean(text: object) -> str:
    """Somebody else's text, short and without characters that a terminal acts on."""
    line = "".join(char if char.isprintable() else " " for char in str(text)[: 4 * MAX_TEXT])
    line = " ".join(line.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def term(value: object) -> str | None:
    """`trainedAlgorithmicMedia` of its IPTC address; None for anything else than a known vocabulary."""
    if not isinstance(value, str):
        return None
    value = value.strip()
    for namespace in NAMESPACES:
        if value.startswith(namespace):
            return clean(value[len(namespace) :])
    return clean(value) if value in ORIGINS else None


def software(agent: object) -> str:
    """Name and version of an action's software, which is a text or an object with a name."""
    if isinstance(agent, Mapping):
        return clean(f"{agent.get('name', '')} {agent.get('version', '')}")
    return clean(agent) if agent else ""


class _Walk:
    """Follows the manifests of one report, each once, within bounds."""

    def __init__(self, report: Mapping[str, Any], state: State) -> None:
        manifests = report.get("manifests")
        self.manifests: Mapping[str, Any] = manifests if isinstance(manifests, Mapping) else {}
        self.codes = _codes(report, self.manifests)
        self.seen: set[str] = set()
        self.claims = Claims(state=state)
        active = report.get("active_manifest")
        if isinstance(active, str):
            self._follow(active, state, 0, is_origin=True)

    def _follow(self, label: str, state: State, depth: int, is_origin: bool) -> None:
        """Read one manifest and those that it was made from.

        Args:
            label: its name in the report.
            state: the weakest signature down to here.
            depth: manifests above it.
            is_origin: it is the picture itself at an earlier time, not a part that was placed into it.
        """
        manifest = self.manifests.get(label)
        if not isinstance(manifest, Mapping):
            return
        if label in self.seen or depth >= MAX_DEPTH or len(self.seen) >= MAX_MANIFESTS:
            self.claims.is_cut = True
            return
        self.seen.add(label)
        actions = list(_actions(manifest))
        ingredients = [entry for entry in _list(manifest.get("ingredients")) if isinstance(entry, Mapping)]
        has_parent = any(entry.get("relationship") == "parentOf" for entry in ingredients)
        for action in actions:
            self._read_action(action, label, state, is_origin, has_parent)
        is_composed = any(entry.get("relationship") == "componentOf" for entry in ingredients)
        self._read_others(manifest, label, state, is_origin and not has_parent, is_composed)
        if is_origin:
            self.claims.is_complete &= _lists_all_actions(manifest)
        for entry in ingredients:
            self._read_ingredient(entry, label, state, depth, is_origin)
        # What an editor says of the file that it opened is second to what that file says of itself.
        opened = [term(a.get("digitalSourceType")) for a in actions if a.get("action") == "c2pa.opened"]
        if is_origin and self.claims.source_type is None and (kind := next(filter(None, opened), None)):
            self._originate(kind, label, state)

    def _read_action(
        self, action: Mapping[str, Any], label: str, state: State, is_origin: bool, has_parent: bool
    ) -> None:
        name, kind = clean(action.get("action", "")), term(action.get("digitalSourceType"))
        told = {
            "action": name,
            "source_type": kind or "",
            "software": software(action.get("softwareAgent")),
            "when": clean(action.get("when") or ""),
        }
        self.claims.actions.append({key: value for key, value in told.items() if value})
        is_ai = kind in SYNTHETIC | COMPOSITE
        if name in INCEPTION or (name in NOT_EDITORIAL and is_ai and not has_parent):
            if is_origin and kind is not None:
                if is_ai or name != "c2pa.opened":
                    self._originate(kind, label, state)
            elif is_ai:
                self.claims.ai_edits.append(f"a part that is {kind}")
        elif name not in NOT_EDITORIAL:
            if is_ai:
                self.claims.ai_edits.append(f"{name} ({kind})")
            elif kind in MAY_CONTAIN_AI or name == "c2pa.unknown" or not name.startswith("c2pa."):
                self.claims.doubts.append(f"the action {name}")

    def _read_others(
        self, manifest: Mapping[str, Any], label: str, state: State, is_begin: bool, is_composed: bool
    ) -> None:
        """What assertions beside the actions say of AI.

        Args:
            manifest: as in the report.
            label: its name there.
            state: the weakest signature down to here.
            is_begin: the picture came into being here, not from another file.
            is_composed: other pictures were placed into it, so that a model need not have made all of it.
        """
        for metadata in METADATA:
            for data in _assertions(manifest, metadata):
                kind = next(filter(None, (term(data.get(name)) for name in _SOURCE_TYPES)), None)
                if kind in SYNTHETIC | COMPOSITE:
                    self._say_ai(kind, f"metadata that say {kind}", label, state, is_begin)
        for data in _assertions(manifest, GENERATIVE):
            program = software({"name": data.get("description"), "version": data.get("version") or ""})
            is_whole = is_begin and not is_composed
            self._say_ai("trainedAlgorithmicMedia", f"generative AI, {program}", label, state, is_whole)
        for data in _assertions(manifest, DISCLOSURE):
            if self.claims.source_type not in SYNTHETIC | COMPOSITE:
                model = clean(data.get("modelName") or data.get("modelType") or "a model not named")
                self.claims.ai_edits.append(f"AI had a part in it: {model}")

    def _say_ai(self, kind: str, what: str, label: str, state: State, is_begin: bool) -> None:
        """The origin, where the picture came into being here and no action told of it; else an edit."""
        if is_begin and self.claims.source_type is None:
            self._originate(kind, label, state)
        elif self.claims.source_type not in SYNTHETIC | COMPOSITE:
            self.claims.ai_edits.append(what)

    def _read_ingredient(
        self, entry: Mapping[str, Any], label: str, state: State, depth: int, is_origin: bool
    ) -> None:
        relationship = entry.get("relationship")
        below = entry.get("active_manifest")
        own = self._state_of(below) if isinstance(below, str) and below in self.manifests else None
        metadata = entry.get("metadata")
        said = [entry.get("digitalSourceType"), entry.get("digital_source_type")]
        said += [metadata.get("digitalSourceType")] if isinstance(metadata, Mapping) else []
        kind = next(filter(None, map(term, said)), None)
        told = {
            "title": clean(entry.get("title") or ""),
            "relationship": clean(relationship or ""),
            "state": own or "none",
            "source_type": kind or "",
        }
        self.claims.ingredients.append({key: value for key, value in told.items() if value})
        if relationship not in ("parentOf", "componentOf"):
            return  # inputTo: a prompt or reference; what was made of it says its own action
        is_origin = is_origin and relationship == "parentOf"
        if kind is not None and is_origin:
            self._originate(kind, label, state)
        elif kind in SYNTHETIC | COMPOSITE:
            self.claims.ai_edits.append(f"a part that is {kind}")
        if own in ("trusted", "valid_untrusted") and isinstance(below, str):
            self._follow(below, _weakest(state, own), depth + 1, is_origin)
        elif kind is None:
            whole = "what it was opened from" if is_origin else "a part"
            self.claims.doubts.append(f"{whole} has no valid manifest")

    def _originate(self, kind: str, label: str, state: State) -> None:
        """Take the first origin that is said; one of AI stands above any other that is said on the same way."""
        is_ai, had_ai = kind in SYNTHETIC | COMPOSITE, self.claims.source_type in SYNTHETIC | COMPOSITE
        if self.claims.source_type is None or (is_ai and not had_ai):
            self.claims.source_type, self.claims.origin = kind, ORIGINS.get(kind, "unknown")
            self.claims.declared_by, self.claims.state = label, state

    def _state_of(self, label: str) -> State:
        success, failure = self.codes.get(label, (set(), set()))
        doubted = {code for code in failure if code == "signingCredential.untrusted" or _is_about_time(code)}
        if failure - doubted:
            return "invalid"
        # Deltas are what this trust list says other than the one of whoever signed the manifest above.
        trusted = "signingCredential.trusted" in success and "signingCredential.untrusted" not in failure
        return "trusted" if trusted else "valid_untrusted"


def _codes(report: Mapping[str, Any], manifests: Mapping[str, Any]) -> dict[str, tuple[set[str], set[str]]]:
    """Label of an ingredient's manifest -> codes of success and of failure, as recorded and as found now."""
    recorded: dict[str, tuple[set[str], set[str]]] = {}
    found: dict[str, tuple[set[str], set[str]]] = {}
    for manifest in manifests.values():
        for entry in _list(manifest.get("ingredients") if isinstance(manifest, Mapping) else None):
            if not isinstance(entry, Mapping) or not isinstance(entry.get("active_manifest"), str):
                continue
            results = entry.get("validation_results")
            active = results.get("activeManifest") if isinstance(results, Mapping) else None
            _collect(recorded, active, entry["active_manifest"])
            older = {"failure": _list(entry.get("validation_status"))}
            _collect(recorded, older, entry["active_manifest"])
    results = report.get("validation_results")
    for delta in _list(results.get("ingredientDeltas") if isinstance(results, Mapping) else None):
        _collect(found, delta.get("validationDeltas") if isinstance(delta, Mapping) else None, None)
    for label, (success, failure) in found.items():
        old_success, old_failure = recorded.get(label, (set(), set()))
        if "signingCredential.trusted" in success:  # this list knows the signer, the earlier one did not
            old_failure = old_failure - {"signingCredential.untrusted"}
        recorded[label] = (old_success | success, old_failure | failure)
    return recorded


def _collect(
    into: dict[str, tuple[set[str], set[str]]], results: Mapping[str, Any] | None, label: str | None
) -> None:
    """Sort the codes of one list of results by the manifest that they are about (`self#jumbf=/c2pa/LABEL/...`)."""
    if not isinstance(results, Mapping):
        return
    for place, key in enumerate(("success", "failure")):
        for status in _list(results.get(key)):
            if not isinstance(status, Mapping) or (key == "failure" and status.get("success") is True):
                continue
            parts = str(status.get("url", "")).split("/")
            about = parts[2] if len(parts) > 2 and parts[1] == "c2pa" else label
            if about is not None:
                into.setdefault(about, (set(), set()))[place].add(str(status.get("code", "")))


def _is_about_time(code: str) -> bool:
    """Codes of time stamps and revocation that say something was not or could not be checked."""
    return code in ("timeStamp.untrusted", "timeStamp.outsideValidity", "signingCredential.ocsp.inaccessible")


def _actions(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for data in _assertions(manifest, "c2pa.actions"):
        yield from (action for action in _list(data.get("actions")) if isinstance(action, Mapping))


def _lists_all_actions(manifest: Mapping[str, Any]) -> bool:
    said = [data.get("allActionsIncluded") is True for data in _assertions(manifest, "c2pa.actions")]
    return bool(said) and all(said)


def _assertions(manifest: Mapping[str, Any], label: str) -> Iterator[Mapping[str, Any]]:
    """Data of the assertions of a kind, in any version and number (`c2pa.actions.v2__1`)."""
    for assertion in _list(manifest.get("assertions")):
        if isinstance(assertion, Mapping) and str(assertion.get("label", "")).split("__")[0] in (
            label,
            label + ".v2",
        ):
            data = assertion.get("data")
            if isinstance(data, Mapping):
                yield data


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _weakest(first: State, second: State) -> State:
    return max(first, second, key=RANK.index)
