"""Signs test pictures with C2PA manifests, by authorities made here. On sys.path for all tests."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
from PIL import Image as Pil

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"

CONTAINERS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "TIFF": "image/tiff",
    "HEIF": "image/heic",
}
"""Pillow's name -> the C2PA library's."""


@dataclass(frozen=True)
class Authority:
    """A root certificate and one signer below it.

    Attributes:
        root: PEM of the root, to be given as a trust list.
        chain: PEM of the signer and the root.
        key: PEM of the signer's private key.
    """

    root: str
    chain: str
    key: str

    def signer(self) -> Any:
        """A fresh signer of the library; each signs once."""
        import c2pa

        info = c2pa.C2paSignerInfo(
            alg=b"es256", sign_cert=self.chain.encode(), private_key=self.key.encode(), ta_url=None
        )
        return c2pa.Signer.from_info(info)


def authority(name: str = "Test") -> Authority:
    """An authority of its own for each name, the same each time."""
    return _made(name)


@cache
def _made(name: str) -> Authority:
    """An ES256 root and leaf with the extended key usage for e-mail, as C2PA asks for; valid for a week."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(role: str) -> x509.Name:
        parts = {NameOID.ORGANIZATION_NAME: f"{name} Org", NameOID.COMMON_NAME: f"{name} {role}"}
        return x509.Name([x509.NameAttribute(key, value) for key, value in parts.items()])

    def usage(is_root: bool) -> x509.KeyUsage:
        unused = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        return x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=is_root,
            crl_sign=is_root,
            encipher_only=False,
            decipher_only=False,
            **unused,
        )

    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    certificates = []
    for role, key in (("Root", root_key), ("Signer", leaf_key)):
        is_root = role == "Root"
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(role))
            .issuer_name(named("Root"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(days=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=7))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(usage(is_root), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
            )
        )
        if not is_root:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, critical=False)
        certificate = builder.sign(root_key, hashes.SHA256())
        certificates.append(certificate.public_bytes(serialization.Encoding.PEM).decode())
    private = leaf_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Authority(certificates[0], certificates[1] + certificates[0], private.decode())


@cache
def photo(container: str = "JPEG", seed: int = 1, size: tuple[int, int] = (320, 240)) -> bytes:
    """A picture of soft colours in a container.

    Raises:
        ImportError: HEIF without pillow-heif.
    """
    if container == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    stream = io.BytesIO()
    Pil.fromarray(noise).resize(size, Pil.Resampling.BICUBIC).save(stream, container)
    return stream.getvalue()


def action(name: str, source_type: str | None = None, **more: Any) -> dict[str, Any]:
    """One C2PA action; `source_type` without its address."""
    kind = {"digitalSourceType": IPTC + source_type} if source_type else {}
    return {"action": f"c2pa.{name}" if "." not in name else name, **kind, **more}


MADE = (action("created", "trainedAlgorithmicMedia", softwareAgent="Dream 9"),)
TAKEN = (action("created", "digitalCapture"),)
OPENED = action("opened", parameters={"ingredientIds": ["below"]})


def signed(
    actions: Sequence[dict[str, Any]] = MADE,
    *,
    by: Authority | None = None,
    container: str = "JPEG",
    picture: bytes | None = None,
    below: bytes | None = None,
    relationship: str = "parentOf",
    remote: str | None = None,
    context: Any = None,
    **manifest: Any,
) -> bytes:
    """A signed file.

    Args:
        actions: what its manifest says.
        by: who signs.
        container: a key of CONTAINERS.
        picture: the file to sign in place of `photo(container)`.
        below: a file that it was made from, of the same container.
        relationship: of `below`.
        remote: an address to point to in place of an embedded manifest.
        context: the library's settings while signing.
        manifest: more keys of the manifest, or `all_actions=True`.
    """
    import c2pa

    data: dict[str, Any] = {"actions": list(actions)}
    if manifest.pop("all_actions", False):
        data["allActionsIncluded"] = True
    definition = {
        "claim_generator_info": [{"name": "mai tests", "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": data}],
        **manifest,
    }
    builder = c2pa.Builder(json.dumps(definition), context=context)
    mime = CONTAINERS[container]
    if below is not None:
        spec = {"title": "below", "relationship": relationship, "instance_id": "below"}
        builder.add_ingredient(json.dumps(spec), mime, io.BytesIO(below))
    if remote is not None:
        builder.set_no_embed()
        builder.set_remote_url(remote)
    out = io.BytesIO()
    builder.sign((by or authority()).signer(), mime, io.BytesIO(picture or photo(container)), out)
    return out.getvalue()
