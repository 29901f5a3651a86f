"""What a signed C2PA manifest (content credentials) says about the image, and whether the signature holds.

Offline: neither a remote manifest nor the revocation state of a certificate is fetched. The state of a file:

    trusted           whole, signed by somebody whom the trust list vouches for
    valid_untrusted   whole, signed by somebody unknown: anybody could have made it
    invalid           damaged, or the picture was changed after signing; told, never weighed
    remote_only       the file only names an address where a manifest may lie; told, not fetched
    none              no manifest

A manifest alone says nothing about AI: cameras and editors sign too. See _c2pa_claims.py for how it is read,
docs/detectors.md for what each key of the evidence means.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from mai.detectors._c2pa_claims import MAX_LISTED, Claims, State, clean, read, software
from mai.detectors._c2pa_store import Store, find, too_much
from mai.detectors.base import DetectorSettings, Kind, Needs
from mai.errors import MissingExtraError, UsageError
from mai.types import Evidence, Image

TRUST = Path(__file__).parent / "trust"
"""The bundled trust lists, named after their dates; see its README.md."""

MAX_UNFOLDED_MB = 4
"""Of a compressed part, should one get past the check for them."""

SAYS = {
    "fully_genai": "made by generative AI",
    "partly_genai": "made with generative AI in part",
    "captured": "captured by a camera or scanner",
    "composition_may_contain_genai": "composed of parts, which may hold generative AI",
    "screen_capture_may_contain_genai": "captured from a screen, which may hold generative AI",
    "non_genai_creation": "drawn by a person with a program",
    "algorithmic": "made by an algorithm that was not trained",
    "blank_canvas": "begun on a blank canvas",
    "unknown": "of an origin that it does not tell",
}


class Detector:
    """Reads and verifies the C2PA manifest of a file with the library c2pa-python."""

    name = "c2pa"
    needs: Needs = "bytes"
    kind: Kind = "statement"
    weights: str | None = None

    def __init__(self, settings: DetectorSettings) -> None:
        """Find the trust list; the library itself is loaded at the first file that has a manifest.

        Raises:
            MissingExtraError: c2pa-python is not installed.
            UsageError: the trust list cannot be read or holds no certificates.
        """
        if importlib.util.find_spec("c2pa") is None:
            raise MissingExtraError("c2pa-python", "all", "Reading content credentials")
        self._trust_path = settings.trust or max(TRUST.glob("c2pa_trust_list_*.pem"))
        self._trust_pem = _read_trust(self._trust_path)
        if settings.trust:
            self.trust = {"name": clean(settings.trust.name), "date": _changed_on(settings.trust)}
            _check_certificates(settings.trust, self._trust_pem)
        else:
            self.trust = {"name": "C2PA trust list", "date": self._trust_path.stem.rsplit("_", 1)[1]}

    def look(self, images: Sequence[Image]) -> list[Evidence]:
        """One Evidence an image; never raises for a bad one."""
        return [self._look(image) for image in images]

    def _look(self, image: Image) -> Evidence:
        if image.data is None:
            return Evidence(self.name, status="skipped", note="Pixels in memory have no file to read.")
        store = find(image.data)
        if store is None:
            return self._nothing()
        if store.data is not None and (problem := too_much(store.data)):
            note = f"The manifest was not read: {problem}."
            return Evidence(self.name, status="failed", note=note, details={"problem": problem})
        return self._verify(image.data, store)

    def _verify(self, data: bytes, store: Store) -> Evidence:
        """Let the library read the file, and translate what it raises."""
        from c2pa import C2paError, Reader

        try:
            with Reader(store.mime, io.BytesIO(data), context=self._context) as reader:
                report = json.loads(reader.json())
                state = reader.get_validation_state()
        except C2paError.ManifestNotFound:
            return self._damaged("no manifest can be read in it") if store.data else self._nothing()
        except C2paError as error:
            if store.data is None:
                return self._remote(str(error))
            return self._damaged(clean(error))
        except (ValueError, RecursionError) as error:
            return self._damaged(clean(error))
        return self._report(report, state)

    def _report(self, report: Mapping[str, Any], library_state: str | None) -> Evidence:
        """Evidence of a manifest that could be read."""
        problems = _failures(report)
        state = _state(report, library_state)
        claims = read(report, state)
        declares, reason, edited = _declaration(claims) if state != "invalid" else (None, None, None)
        active = _manifest(report, report.get("active_manifest"))
        details: dict[str, Any] = {
            "declares": declares,
            "state": claims.state if declares else state,
            "reason": reason,
            "edited": edited,
            "origin": claims.origin,
            "source_type": claims.source_type,
            "signer": _signer(active),
            "signer_state": state,
            "claim_generator": _claim_generator(active),
            "actions": claims.actions[:MAX_LISTED],
            "n_actions": len(claims.actions),
            "ingredients": claims.ingredients[:MAX_LISTED],
            "n_ingredients": len(claims.ingredients),
            "trust_list": dict(self.trust),
        }
        if claims.declared_by not in (None, report.get("active_manifest")):
            details["declared_by"] = _signer(_manifest(report, claims.declared_by))
        for key, values in (("ai_edits", claims.ai_edits), ("doubts", claims.doubts), ("invalid", problems)):
            if values:
                details[key] = values[:MAX_LISTED]
        if claims.is_cut:
            details["is_cut"] = True
        return Evidence(self.name, note=self._note(details), details=details)

    def _note(self, details: Mapping[str, Any]) -> str:
        """One sentence for people, two where there is more to say."""
        who = details["signer"].get("organization") or details["signer"].get("name") or "an unnamed signer"
        if details["state"] == "invalid":
            broken = "; ".join(
                dict.fromkeys(f"{p['what']} ({p['code']})" for p in details.get("invalid", []))
            )
            return f"The manifest signed by {who} is not valid and does not count: {broken or 'see details'}."
        listed = f"on the trust list of {self.trust['date']}"
        trusted = listed if details["signer_state"] == "trusted" else f"not {listed}"
        said = [] if details["origin"] == "unknown" and "ai_edits" in details else [SAYS[details["origin"]]]
        said += [f"edited with AI ({details['ai_edits'][0]})"] if "ai_edits" in details else []
        note = f"Signed by {who}, {trusted}: it says that the image is {' and '.join(said)}."
        if details["state"] != details["signer_state"]:
            note += " That comes from a file that it was made from, whose signer is not on the list."
        if details["origin"] == "captured" and details["declares"] is None:
            note += f" It does not count as a camera's word: {details['doubts'][0]}."
        return note

    def _nothing(self) -> Evidence:
        details = {"declares": None, "state": "none", "reason": None}
        return Evidence(self.name, status="absent", note="No C2PA manifest.", details=details)

    def _remote(self, error: str) -> Evidence:
        address = re.search(r"https?://\S+", error)
        url = clean(address.group()) if address else "an address that it does not tell"
        note = f"The file names a manifest elsewhere ({url}); MAI is offline and did not fetch it."
        details = {"declares": None, "state": "remote_only", "reason": None, "remote_url": url}
        return Evidence(self.name, note=note, details=details)

    def _damaged(self, why: str) -> Evidence:
        invalid = [{"code": "damaged", "what": "manifest", "explanation": why}]
        details = {"declares": None, "state": "invalid", "reason": None, "invalid": invalid}
        return Evidence(
            self.name, note=f"The manifest is damaged and does not count: {why}.", details=details
        )

    @cached_property
    def _context(self) -> Any:
        """The library's settings, made once. Those of the module (`load_settings`) are not used by readers."""
        from c2pa import Context, Settings

        settings = {
            "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
            # Identity assertions (CAWG) are resolved over the network, so they are not looked at.
            "core": {
                "decode_identity_assertions": False,
                "allowed_network_hosts": [],
                "max_decompressed_manifest_size_in_mb": MAX_UNFOLDED_MB,
            },
            "trust": {"trust_anchors": self._trust_pem},
        }
        return Context(Settings.from_dict(settings))


def _declaration(claims: Claims) -> tuple[str | None, str | None, bool | None]:
    """`declares`, `reason` and `edited` for the verdict (mai/verdict/decide.py)."""
    edited = True if claims.ai_edits or claims.origin == "partly_genai" else None
    if claims.origin == "fully_genai":
        return "synthetic", "signed_provenance", edited
    if edited:
        # Also of a camera's picture: its signature no longer speaks for all that is seen.
        return "edited", "declared_edit", True
    if claims.origin == "captured" and not claims.doubts:
        return "capture", "signed_capture", False if claims.is_complete else None
    return None, None, None


def _state(report: Mapping[str, Any], library_state: str | None) -> State:
    """The file's own state. The library calls a file valid, not trusted, if any ingredient's signer is unknown."""
    if library_state not in ("Trusted", "Valid"):
        return "invalid"
    codes = {status.get("code") for status in _statuses(report, "success")}
    return (
        "trusted" if library_state == "Trusted" or "signingCredential.trusted" in codes else "valid_untrusted"
    )


def _failures(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Which assertion is not valid and why; an unknown signer is a state, not a failure."""
    return [
        {
            "code": clean(status.get("code", "")),
            "what": clean(str(status.get("url", "")).rsplit("/", 1)[-1]) or "manifest",
            "explanation": clean(status.get("explanation", "")),
        }
        for status in _statuses(report, "failure")
        if status.get("code") != "signingCredential.untrusted"
    ]


def _statuses(report: Mapping[str, Any], key: str) -> Iterable[Mapping[str, Any]]:
    """Results for the file's own manifest; failures also of its ingredients."""
    results = report.get("validation_results") or {}
    found = list((results.get("activeManifest") or {}).get(key) or [])
    if key == "failure":
        for delta in results.get("ingredientDeltas") or []:
            found += (delta.get("validationDeltas") or {}).get(key) or []
    return [status for status in found if isinstance(status, Mapping)]


def _manifest(report: Mapping[str, Any], label: object) -> Mapping[str, Any]:
    manifest = (report.get("manifests") or {}).get(label)
    return manifest if isinstance(manifest, Mapping) else {}


def _signer(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Who signed, by the certificate, and when, by the time stamp."""
    signed = manifest.get("signature_info") or {}
    keys = {"name": "common_name", "organization": "issuer", "algorithm": "alg", "time": "time"}
    return {ours: clean(signed[theirs]) for ours, theirs in keys.items() if signed.get(theirs)}


def _claim_generator(manifest: Mapping[str, Any]) -> str | None:
    """The program that made the manifest, by its own word."""
    programs = manifest.get("claim_generator_info")
    names = [software(program) for program in programs] if isinstance(programs, list) else []
    return clean(", ".join(filter(None, names)) or manifest.get("claim_generator") or "") or None


def _read_trust(path: Path) -> str:
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise UsageError(
            f"The trust list {path} cannot be read: {error.strerror or error}. Give a PEM file of certificates."
        ) from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UsageError(
            f"The trust list {path} holds no certificate ('-----BEGIN CERTIFICATE-----'). Give a PEM file."
        )
    return text


def _check_certificates(path: Path, pem: str) -> None:
    """Say now that a list is broken: the C2PA library passes over what it cannot read, and would trust nobody."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"The trust list {path} holds a certificate that cannot be read ({error}). Give a PEM file."
        ) from error


def _changed_on(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
