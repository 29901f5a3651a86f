"""C2PA manifests: states, origins, ingredients, trust, and what must change nothing."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from signing import (
    CONTAINERS,
    IPTC,
    MADE,
    OPENED,
    TAKEN,
    action,
    authority,
    photo,
    signed,
)

from mai.detectors import _c2pa_claims
from mai.detectors import _c2pa_store as stores
from mai.detectors.base import DetectorSettings, load
from mai.detectors.c2pa import TRUST, Detector
from mai.errors import UsageError
from mai.pipeline import Scanner
from mai.types import Evidence, Image, ImageInfo
from mai.verdict.decide import decide

pytest.importorskip("cryptography", reason="certificates for signed test files are made with cryptography")
c2pa = pytest.importorskip("c2pa")

INFO = ImageInfo("JPEG", 320, 240, 1, "")


def asked(data: bytes, trust: Path | None = None) -> Evidence:
    (evidence,) = load("c2pa", DetectorSettings(trust=trust)).look([Image("x", INFO, data, None)])
    return evidence


def state(evidence: Evidence) -> str:
    return str(evidence.details.get("state"))


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    """A trust list with the root of the authority that signs by default."""
    path = tmp_path / "roots.pem"
    path.write_text(authority().root)
    return path


def needs(container: str) -> None:
    if container == "HEIF":
        pytest.importorskip("pillow_heif", reason="HEIC pictures are made with pillow-heif")


# --- states, in each container ---------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_signer_is_trusted_with_its_root_and_only_then(container: str, trust: Path) -> None:
    needs(container)
    data = signed(container=container)
    with_root, without = asked(data, trust), asked(data)
    assert (with_root.status, state(with_root)) == ("ok", "trusted")
    assert (without.status, state(without)) == ("ok", "valid_untrusted")
    for evidence in (with_root, without):
        assert evidence.details["declares"] == "synthetic"
        assert evidence.details["reason"] == "signed_provenance"
        assert evidence.details["origin"] == "fully_genai"
        assert evidence.details["signer"]["organization"] == "Test Org"
        assert evidence.details["claim_generator"].startswith("mai tests")
        assert evidence.details["actions"][0] == {
            "action": "c2pa.created",
            "source_type": "trainedAlgorithmicMedia",
            "software": "Dream 9",
        }


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_picture_changed_after_signing_is_invalid(container: str, trust: Path) -> None:
    needs(container)
    data = bytearray(signed(container=container))
    plain = photo(container)
    data[data.rindex(plain[len(plain) * 3 // 4 : len(plain) * 3 // 4 + 16]) + 8] ^= 0x10
    evidence = asked(bytes(data), trust)
    assert (evidence.status, state(evidence)) == ("ok", "invalid")
    assert evidence.details["declares"] is None
    assert "hash" in evidence.details["invalid"][0]["code"].lower()
    assert evidence.details["invalid"][0]["what"].startswith("c2pa.hash.")


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_changed_assertion_is_named(container: str, trust: Path) -> None:
    needs(container)
    data = signed(container=container).replace(b"trainedAlgorithmicMedia", b"digitalCaptureeeeeeeeee")
    evidence = asked(data, trust)
    assert state(evidence) == "invalid"
    named = [(problem["code"], problem["what"]) for problem in evidence.details["invalid"]]
    assert ("assertion.hashedURI.mismatch", "c2pa.actions.v2") in named
    assert "c2pa.actions.v2" in evidence.note


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_remote_manifest_is_told_and_not_fetched(container: str, trust: Path) -> None:
    needs(container)
    asked_for: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked_for.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.c2pa"
        data = signed(container=container, remote=url)
        evidence = asked(data, trust)
        assert not asked_for
        with pytest.raises(c2pa.C2paError):  # the library left to itself does ask
            c2pa.Reader(CONTAINERS[container], io.BytesIO(data))
        assert asked_for
        server.shutdown()
    assert (evidence.status, state(evidence)) == ("ok", "remote_only")
    assert evidence.details["remote_url"] == url
    assert evidence.details["declares"] is None


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_manifest_is_absent_and_needs_no_library(container: str) -> None:
    needs(container)
    evidence = asked(photo(container))
    assert (evidence.status, state(evidence)) == ("absent", "none")
    assert stores.find(photo(container)) is None


def test_the_library_is_loaded_at_the_first_manifest(tmp_path: Path) -> None:
    (tmp_path / "plain.jpg").write_bytes(photo())
    (tmp_path / "signed.jpg").write_bytes(signed())
    code = (
        "import sys, mai\n"
        "for name in ('plain.jpg', 'signed.jpg'):\n"
        f"    mai.scan({str(tmp_path)!r} + '/' + name, ['c2pa'])\n"
        "    print('c2pa' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("where", ["claim", "signature", "length"])
def test_a_damaged_manifest_is_invalid(container: str, where: str, trust: Path) -> None:
    needs(container)
    data = bytearray(signed(container=container))
    if where == "length":
        at = data.index(b"jumdc2ma") - 4
    else:
        at = data.index(b"c2pa.claim.v2\0" if where == "claim" else b"c2pa.signature\0") + 40
    data[at : at + 4] = b"\xff\xfe\xfd\xfc"
    evidence = asked(bytes(data), trust)
    assert (evidence.status, state(evidence)) == ("ok", "invalid")
    assert evidence.details["declares"] is None
    assert evidence.details["invalid"]


# --- what a manifest says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source_type", "origin", "declares"),
    [
        ("trainedAlgorithmicMedia", "fully_genai", "synthetic"),
        ("compositeWithTrainedAlgorithmicMedia", "partly_genai", "edited"),
        ("compositeSynthetic", "partly_genai", "edited"),
        ("digitalCapture", "captured", "capture"),
        ("computationalCapture", "captured", "capture"),
        ("negativeFilm", "captured", "capture"),
        ("composite", "composition_may_contain_genai", None),
        ("screenCapture", "screen_capture_may_contain_genai", None),
        ("digitalCreation", "non_genai_creation", None),
        ("algorithmicMedia", "algorithmic", None),
        ("somethingNew", "unknown", None),
    ],
)
def test_the_source_type_of_the_creation(
    source_type: str, origin: str, declares: str | None, trust: Path
) -> None:
    evidence = asked(signed([action("created", source_type)]), trust)
    details = evidence.details
    assert (state(evidence), details["origin"], details["declares"]) == ("trusted", origin, declares)
    assert details["edited"] is (True if declares == "edited" else None)
    expected = {"synthetic": "signed_provenance", "edited": "declared_edit", "capture": "signed_capture"}
    assert details["reason"] == expected.get(declares or "")


def test_only_the_vocabulary_counts(trust: Path) -> None:
    spoof = action("created", None, digitalSourceType="http://evil.example/trainedAlgorithmicMedia")
    titled = signed([spoof], title="trainedAlgorithmicMedia", claim_generator_info=[{"name": "Firefly"}])
    assert asked(titled, trust).details["declares"] is None


def test_a_captured_picture_edited_with_ai_is_edited_and_no_longer_a_capture(trust: Path) -> None:
    fill = action("edited", "compositeWithTrainedAlgorithmicMedia")
    details = asked(signed([*TAKEN, fill]), trust).details
    assert (details["declares"], details["edited"], details["origin"]) == ("edited", True, "captured")
    details = asked(signed([OPENED, fill], below=signed(TAKEN)), trust).details
    assert (details["declares"], details["edited"], details["origin"]) == ("edited", True, "captured")


def test_a_synthetic_picture_edited_stays_synthetic(trust: Path) -> None:
    fill = action("edited", "compositeWithTrainedAlgorithmicMedia")
    details = asked(signed([OPENED, fill], below=signed()), trust).details
    assert (details["declares"], details["edited"]) == ("synthetic", True)
    details = asked(signed([OPENED, action("cropped")], below=signed()), trust).details
    assert (details["declares"], details["edited"]) == ("synthetic", None)


@pytest.mark.parametrize(
    ("doubt", "counts"),
    [
        (action("color_adjustments"), True),
        (action("cropped"), True),
        (action("unknown"), False),
        (action("org.example.magic"), False),
        (action("edited", "composite"), False),
    ],
)
def test_a_capture_with_doubtful_changes_is_not_taken_for_one(
    doubt: dict[str, object], counts: bool, trust: Path
) -> None:
    details = asked(signed([*TAKEN, doubt]), trust).details
    assert details["origin"] == "captured"
    assert details["declares"] == ("capture" if counts else None)


def test_edited_is_false_only_where_all_actions_are_said_to_be_listed(trust: Path) -> None:
    assert asked(signed(TAKEN), trust).details["edited"] is None
    assert asked(signed(TAKEN, all_actions=True), trust).details["edited"] is False


def _with(actions: list[dict[str, object]], *others: dict[str, object], **more: object) -> bytes:
    """Signed with assertions beside the actions; `version=1` for a claim as they were until 2024."""
    version = more.pop("version", 2)
    label = "c2pa.actions" if version == 1 else "c2pa.actions.v2"
    assertions = [{"label": label, "data": {"actions": actions}}, *others]
    return signed(assertions=assertions, claim_version=version, **more)


@pytest.mark.parametrize(
    "address", [" {}", "{}\n", "https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"]
)
def test_an_address_written_a_little_otherwise_is_the_same(address: str, trust: Path) -> None:
    value = address.format(IPTC + "trainedAlgorithmicMedia")
    data = signed([action("created", None, digitalSourceType=value)])
    assert asked(data, trust).details["declares"] == "synthetic"


def test_a_claim_of_the_first_version(trust: Path) -> None:
    made = _with([action("created", "trainedAlgorithmicMedia", softwareAgent="Adobe Firefly")], version=1)
    assert asked(made, trust).details["declares"] == "synthetic"
    camera = {
        "label": "stds.exif",
        "data": {"@context": {"exif": "http://ns.adobe.com/exif/1.0/"}, "exif:Make": "Leica"},
    }
    details = asked(_with([action("created")], camera, version=1), trust).details
    assert (details["declares"], details["origin"]) == (None, "unknown")


FIREFLY = {"label": "com.adobe.generative-ai", "data": {"description": "Adobe Firefly", "version": "0.7"}}
"""As Firefly wrote before actions had source types (Adobe, c2pa-js, selectGenerativeInfo)."""


def test_adobes_assertion_before_source_types(trust: Path) -> None:
    details = asked(_with([action("created")], FIREFLY, version=1), trust).details
    assert (details["declares"], details["edited"]) == ("synthetic", None)
    details = asked(_with([OPENED], FIREFLY, below=signed(TAKEN)), trust).details
    assert (details["declares"], details["edited"], details["origin"]) == ("edited", True, "captured")
    assert details["ai_edits"] == ["generative AI, Adobe Firefly 0.7"]
    other = {**FIREFLY, "label": "com.adobe.generative-ai-not"}
    assert asked(_with(list(TAKEN), other), trust).details["declares"] == "capture"


@pytest.mark.parametrize(("relationship", "origin"), [("inputTo", "fully_genai"), ("componentOf", "unknown")])
def test_adobes_assertion_beside_pictures_that_were_placed(relationship: str, origin: str) -> None:
    """A report by hand, for the signing library writes no ingredients into claims of 2023: a corner may be AI's."""
    actions = {"label": "c2pa.actions", "data": {"actions": [{"action": "c2pa.created"}]}}
    manifest = {"assertions": [actions, FIREFLY], "ingredients": [{"relationship": relationship}]}
    claims = _c2pa_claims.read({"active_manifest": "a", "manifests": {"a": manifest}}, "trusted")
    assert claims.origin == origin
    assert claims.ai_edits == ([] if origin == "fully_genai" else ["generative AI, Adobe Firefly 0.7"])


def test_a_disclosure_of_ai_is_told_and_ends_a_capture(trust: Path) -> None:
    data = {"modelType": "generative_model", "modelName": "Imagen 5"}
    disclosure = {"label": "c2pa.ai-disclosure", "data": data}
    details = asked(_with(list(TAKEN), disclosure), trust).details
    assert (details["declares"], details["origin"]) == ("edited", "captured")
    assert details["ai_edits"] == ["AI had a part in it: Imagen 5"]
    details = asked(_with(list(MADE), disclosure), trust).details
    assert (details["declares"], details["edited"]) == ("synthetic", None)


@pytest.mark.parametrize("label", ["c2pa.training-mining", "cawg.training-mining"])
def test_whether_others_may_train_on_it_says_nothing_about_its_origin(label: str, trust: Path) -> None:
    space = label.split(".", maxsplit=1)[0]
    entries = {f"{space}.ai_generative_training": {"use": "notAllowed"}}
    data = _with(list(TAKEN), {"label": label, "data": {"entries": entries}})
    assert asked(data, trust).details["declares"] == "capture"


@pytest.mark.parametrize("label", ["c2pa.metadata", "cawg.metadata", "stds.iptc"])
def test_signed_metadata_may_say_ai_and_are_not_asked_for_more(label: str, trust: Path) -> None:
    def metadata(kind: str) -> dict[str, object]:
        context = {"Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"}
        return {"label": label, "data": {"@context": context, "Iptc4xmpExt:DigitalSourceType": IPTC + kind}}

    created = [action("created")]
    details = asked(_with(created, metadata("trainedAlgorithmicMedia"), version=1), trust).details
    assert (details["declares"], details["reason"]) == ("synthetic", "signed_provenance")
    details = asked(_with(list(TAKEN), metadata("compositeSynthetic")), trust).details
    assert (details["declares"], details["origin"]) == ("edited", "captured")
    details = asked(_with(created, metadata("digitalCapture"), version=1), trust).details
    assert details["declares"] is None


def test_a_camera_phone_and_its_editor(trust: Path) -> None:
    """As a Pixel's camera and Google Photos write (iptc.org, news of September 2025)."""
    shot = signed([action("created", "computationalCapture", softwareAgent="Camera")], all_actions=True)
    assert asked(shot, trust).details["declares"] == "capture"
    cropped = signed([OPENED, action("cropped"), action("edited", "humanEdits")], below=shot)
    assert asked(cropped, trust).details["declares"] == "capture"
    erased = signed([OPENED, action("edited", "compositeWithTrainedAlgorithmicMedia")], below=shot)
    assert asked(erased, trust).details["declares"] == "edited"
    unsigned = signed([OPENED, action("edited", "trainedAlgorithmicMedia")], below=photo())
    assert asked(unsigned, trust).details["declares"] == "edited"


def test_what_the_opened_file_says_stands_before_what_its_editor_says_of_it(trust: Path) -> None:
    def opened(kind: str) -> dict[str, object]:
        return {**OPENED, "digitalSourceType": IPTC + kind}

    details = asked(signed([opened("humanEdits")], below=signed(TAKEN)), trust).details
    assert (details["declares"], details["origin"]) == ("capture", "captured")
    assert asked(signed([opened("digitalCapture")], below=signed()), trust).details["declares"] == "synthetic"
    assert asked(signed([opened("digitalCapture")], below=photo()), trust).details["origin"] == "captured"
    assert (
        asked(signed([opened("trainedAlgorithmicMedia")], below=photo()), trust).details["declares"]
        == "synthetic"
    )


# --- ingredients -------------------------------------------------------------------------------------------------


def test_ingredients_are_followed(trust: Path) -> None:
    data = signed()
    for _ in range(3):
        data = signed([OPENED, action("cropped")], below=data)
    details = asked(data, trust).details
    assert (details["declares"], details["state"], details["n_ingredients"]) == ("synthetic", "trusted", 3)
    assert details["ingredients"][0] == {"title": "below", "relationship": "parentOf", "state": "trusted"}


@pytest.mark.parametrize("actions", [MADE, TAKEN])
def test_a_chain_is_as_good_as_its_weakest_signature(
    actions: tuple[dict[str, object], ...], trust: Path
) -> None:
    stranger = authority("Stranger")
    claim = signed(actions, by=stranger)
    evidence = asked(signed([OPENED], below=claim), trust)
    assert evidence.details["signer_state"] == "trusted"
    assert state(evidence) == "valid_untrusted"
    assert evidence.details["declared_by"]["organization"] == "Stranger Org"
    assert (
        asked(signed([OPENED], by=stranger, below=signed(actions)), trust).details["state"]
        == "valid_untrusted"
    )
    trust.write_text(authority().root + stranger.root)
    assert state(asked(signed([OPENED], below=claim), trust)) == "trusted"


def test_what_the_signer_trusted_is_asked_again(trust: Path) -> None:
    """An editor recorded 'trusted' by its own list; that says nothing about ours."""
    stranger = authority("Stranger")
    generous = c2pa.Context(c2pa.Settings.from_dict({"trust": {"trust_anchors": stranger.root}}))
    data = signed([OPENED], below=signed(by=stranger), context=generous)
    evidence = asked(data, trust)
    assert evidence.details["signer_state"] == "trusted"
    assert evidence.details["ingredients"][0]["state"] == "valid_untrusted"
    assert state(evidence) == "valid_untrusted"


def test_a_part_made_by_ai_is_an_edit(trust: Path) -> None:
    placed = action("placed", parameters={"ingredientIds": ["below"]})
    data = signed([*TAKEN, placed], below=signed(), relationship="componentOf")
    details = asked(data, trust).details
    assert (details["declares"], details["edited"], details["origin"]) == ("edited", True, "captured")


def test_a_part_of_unknown_origin_leaves_a_capture_in_doubt(trust: Path) -> None:
    details = asked(signed(TAKEN, below=photo(), relationship="componentOf"), trust).details
    assert (details["declares"], details["origin"]) == (None, "captured")
    assert details["doubts"]


def test_a_reference_image_says_nothing_about_the_result(trust: Path) -> None:
    details = asked(signed(TAKEN, below=signed(), relationship="inputTo"), trust).details
    assert (details["declares"], details["edited"]) == ("capture", None)
    details = asked(signed(MADE, below=signed(TAKEN), relationship="inputTo"), trust).details
    assert details["declares"] == "synthetic"


def test_a_broken_ingredient_is_not_believed(trust: Path) -> None:
    broken = bytearray(signed())
    broken[-100] ^= 1
    details = asked(signed([OPENED], below=bytes(broken)), trust).details
    assert details["ingredients"][0]["state"] == "invalid"
    assert (details["declares"], details["origin"]) == (None, "unknown")


# --- bounds ------------------------------------------------------------------------------------------------------


def test_thousands_of_ingredients_are_refused_at_once(trust: Path) -> None:
    parts = [
        {"title": f"{n}", "format": "image/jpeg", "relationship": "componentOf", "instance_id": f"{n}"}
        for n in range(1200)
    ]
    evidence = asked(signed([action("created", "digitalCreation")], ingredients=parts), trust)
    assert evidence.status == "failed"
    assert "boxes" in evidence.details["problem"]
    few = asked(signed([action("created", "digitalCreation")], ingredients=parts[:60]), trust)
    assert (state(few), few.details["n_ingredients"], len(few.details["ingredients"])) == ("trusted", 60, 20)


def test_a_megabyte_of_claims_is_refused_and_one_of_thumbnails_is_not(trust: Path) -> None:
    """One real store, its largest assertion or its thumbnail blown up; what is refused is never opened."""
    store = stores.find(signed([action("created", "digitalCapture", description="x" * 3000)]))
    assert store is not None
    assert store.data is not None
    assert stores.too_much(store.data) is None
    for kind, refused in ((b"cbor", True), (b"bidb", False)):
        at = store.data.index(kind) - 4
        length = int.from_bytes(store.data[at : at + 4], "big")
        more = bytes(stores.MAX_CLAIM_BYTES)
        grown = (
            store.data[:at]
            + (length + len(more)).to_bytes(4, "big")
            + store.data[at + 4 : at + length]
            + more
        )
        around = [m for m in _each(store.data, b"jumb") if m - 4 + _length(store.data, m - 4) > at > m]
        for m in around:  # the boxes around it grow too
            grown = grown[: m - 4] + (_length(store.data, m - 4) + len(more)).to_bytes(4, "big") + grown[m:]
        problem = stores.too_much(grown + store.data[at + length :])
        assert (problem is not None and "claims" in problem) == refused


def _length(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def test_a_compressed_store_is_refused(trust: Path) -> None:
    packing = c2pa.Context(c2pa.Settings.from_dict({"core": {"prefer_compress_manifests": True}}))
    evidence = asked(signed(context=packing), trust)
    assert (evidence.status, "compressed" in evidence.note) == ("failed", True)


def test_a_history_deeper_than_followed_is_said_to_be_cut(
    trust: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = signed()
    for _ in range(4):
        data = signed([OPENED], below=data)
    assert asked(data, trust).details["declares"] == "synthetic"
    monkeypatch.setattr(_c2pa_claims, "MAX_DEPTH", 4)
    evidence = asked(data, trust)
    assert (state(evidence), evidence.details["is_cut"]) == ("trusted", True)
    assert evidence.details["declares"] is None


def test_manifests_that_refer_to_one_another_end(trust: Path) -> None:
    """The child's label is overwritten with its parent's: the ingredient now points back at its own manifest."""
    data = signed([OPENED], below=signed())
    start, end = data.index(b"jumdc2ma") - 8, data.rindex(b"c2pa.signature\0")
    labels = sorted(
        {data[m : m + 45] for m in _each(data, b"urn:c2pa:") if data[m + 45 : m + 46] in b"\0/\xa6"}
    )
    assert len(labels) == 2
    for old, new in (labels, labels[::-1]):
        looped = data[:start] + data[start:end].replace(old, new) + data[end:]
        assert state(asked(looped, trust)) == "invalid"


def _each(data: bytes, text: bytes) -> list[int]:
    found, at = [], data.find(text)
    while at >= 0:
        found.append(at)
        at = data.find(text, at + 1)
    return found


# --- spoofing ----------------------------------------------------------------------------------------------------


def test_a_store_where_the_container_does_not_put_it_is_not_read() -> None:
    """The bytes of a real store after the end of the file, in a comment, in pixel data, in another chunk."""
    found = stores.find(signed())
    assert found is not None
    assert found.data is not None
    jumbf, xmp = found.data, b"<x dcterms:provenance='https://example.org/a.c2pa'/>"
    for store in (jumbf, xmp, stores.C2PA_UUID + jumbf):
        jpeg, png, webp, tiff, avif = (photo(c) for c in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"))
        comment = b"\xff\xfe" + (len(store[:60_000]) + 2).to_bytes(2, "big") + store[:60_000]
        text = b"tEXt" + b"Comment\0" + store
        spoofs = [
            *(picture + store for picture in (jpeg, png, webp, tiff)),
            jpeg[:2] + comment + jpeg[2:],
            jpeg[:2] + b"\xff\xeb" + comment[2:] + jpeg[2:],  # APP11, but no JP box
            png[:33] + (len(text) - 4).to_bytes(4, "big") + text + b"\0\0\0\0" + png[33:],
            webp + b"C2PA" + len(store).to_bytes(4, "little") + store,  # after the RIFF form
            avif + (8 + len(store)).to_bytes(4, "big") + b"free" + store,
        ]
        for data in spoofs:
            assert stores.find(data) is None
            assert state(asked(data)) == "none"


def test_a_borrowed_manifest_is_invalid(trust: Path) -> None:
    """The manifest of one picture in front of another."""
    plain, donor = photo(), signed()
    at = donor.index(b"\xff\xeb")
    end = donor.index(b"\xff\xdb")
    other = photo(seed=2)
    evidence = asked(other[:20] + donor[at:end] + other[20:], trust)
    assert plain != other
    assert state(evidence) == "invalid"
    assert evidence.details["declares"] is None


def test_texts_of_others_are_harmless(trust: Path) -> None:
    evil = "\x1b[2J\u202egpj.exe<script>" + "x" * 5000
    agent = action("created", "trainedAlgorithmicMedia", softwareAgent=evil)
    data = signed([agent], claim_generator_info=[{"name": evil}], below=photo(), relationship="componentOf")
    told = json.dumps(dict(asked(data, trust).details), ensure_ascii=False)
    assert "\x1b" not in told
    assert "\\u001b" not in told
    assert "\u202e" not in told
    assert "x" * 200 not in told


# --- the trust list ----------------------------------------------------------------------------------------------


def test_the_bundled_list_is_dated_and_whole() -> None:
    from cryptography import x509

    detector = Detector(DetectorSettings())
    path = TRUST / f"c2pa_trust_list_{detector.trust['date']}.pem"
    assert len(x509.load_pem_x509_certificates(path.read_bytes())) == 30
    assert detector.trust["date"] in (TRUST / "README.md").read_text()
    assert detector.trust["date"] in asked(signed()).note
    assert asked(signed()).details["trust_list"] == {
        "name": "C2PA trust list",
        "date": detector.trust["date"],
    }


@pytest.mark.parametrize(
    "text",
    [None, "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
)
def test_an_unusable_trust_list_is_refused_with_its_name(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "list.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"list\.pem"):
        load("c2pa", DetectorSettings(trust=path))


def test_a_given_list_takes_the_place_of_the_bundled_one(trust: Path) -> None:
    evidence = asked(signed(), trust)
    assert evidence.details["trust_list"]["name"] == trust.name


# --- through to the verdict --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actions", "by", "expected"),
    [
        (MADE, "Test", ("synthetic", "signed_provenance", None)),
        (MADE, "Stranger", ("synthetic", "signed_provenance", None)),
        (TAKEN, "Test", ("authentic", "signed_capture", None)),
        (TAKEN, "Stranger", ("inconclusive", "low_evidence", None)),
        ((action("edited", "compositeSynthetic"),), "Test", ("inconclusive", "declared_edit", True)),
    ],
)
def test_the_verdict(
    actions: tuple[dict[str, object], ...], by: str, expected: tuple[object, ...], trust: Path
) -> None:
    # An edit needs something that was edited.
    picture = signed([OPENED, *actions], below=photo()) if expected[2] else signed(actions, by=authority(by))
    record = Scanner(["c2pa"], trust=trust).scan(picture)
    assert record.verdict is not None
    assert (record.label, record.reason, record.verdict.edited) == expected
    broken = picture.replace(b"c2pa.actions.v2", b"c2pa.actionz.v2")
    verdict = decide([asked(broken, trust)], {})
    assert (verdict.label, verdict.reason) == ("inconclusive", "low_evidence")  # as if it were not there


def test_real_files(shared: Path) -> None:
    made = asked((shared / "provenance" / "10_c2pa-digitalSourceType.jpg").read_bytes())
    assert (state(made), made.details["declares"]) == ("valid_untrusted", "synthetic")
    assert made.details["signer"]["organization"] == "Adobe Inc."
    edited = asked((shared / "provenance" / "11_c2pa-composite.jpg").read_bytes())
    assert (state(edited), edited.details["declares"], edited.details["edited"]) == (
        "valid_untrusted",
        "edited",
        True,
    )
