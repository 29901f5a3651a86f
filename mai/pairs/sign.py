"""C2PA manifests for synthetic files, so that what MAI makes declares itself.

The manifest says `c2pa.created` with the IPTC source type `trainedAlgorithmicMedia` (or, for edits,
`compositeWithTrainedAlgorithmicMedia`), and which generator it was. Signed with a key of the user's; without one, with
a key made on the spot: readers then show a valid manifest of an unknown signer.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mai import __version__
from mai.errors import UsageError, require

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
DAYS = 3650


@dataclass(frozen=True, slots=True)
class Key:
    """Who signs.

    Attributes:
        chain: PEM of the signer's certificate and those above it.
        key: PEM of its private key (PKCS#8).
        algorithm: as the library names it: es256, es384, ps256, ed25519.
    """

    chain: bytes
    key: bytes
    algorithm: bytes = b"es256"


def read_key(chain: Path, key: Path, algorithm: str = "es256") -> Key:
    """A signer from two PEM files.

    Raises:
        UsageError: one cannot be read.
    """
    try:
        return Key(chain.read_bytes(), key.read_bytes(), algorithm.encode())
    except OSError as error:
        raise UsageError(f"The signing key cannot be read: {error.filename}: {error.strerror}.") from error


def own_key() -> Key:
    """A root and an ES256 signer made here, with the extended key usage that C2PA asks for; nobody trusts it.

    Raises:
        MissingExtraError: the package cryptography is missing.
    """
    x509: Any = require("cryptography.x509", "pairs", "Signing")
    oid: Any = require("cryptography.x509.oid", "pairs", "Signing")
    hashes: Any = require("cryptography.hazmat.primitives.hashes", "pairs", "Signing")
    serial: Any = require("cryptography.hazmat.primitives.serialization", "pairs", "Signing")
    ec: Any = require("cryptography.hazmat.primitives.asymmetric.ec", "pairs", "Signing")
    root_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [
        x509.Name([x509.NameAttribute(oid.NameOID.ORGANIZATION_NAME, "MAI, a key of its own"),
                   x509.NameAttribute(oid.NameOID.COMMON_NAME, name)])
        for name in ("MAI root", "MAI signer")
    ]  # fmt: skip
    made = []
    for is_root, subject, own in ((True, names[0], root_key), (False, names[1], leaf_key)):
        usage = x509.KeyUsage(
            digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(names[0]).public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=DAYS))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
            )
        )  # fmt: skip
        if not is_root:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
            )
        made.append(builder.sign(root_key, hashes.SHA256()).public_bytes(serial.Encoding.PEM))
    private = leaf_key.private_bytes(serial.Encoding.PEM, serial.PrivateFormat.PKCS8, serial.NoEncryption())
    return Key(made[1] + made[0], private)


def signed(png: bytes, row: dict[str, Any], key: Key) -> bytes:
    """A PNG with a manifest that says what made it.

    Args:
        png: the file.
        row: of the pairs, for the generator and the kind.
        key: who signs.

    Raises:
        UsageError: the key or its certificates are not such as C2PA takes.
    """
    import c2pa

    edited = row["kind"] == "AI-edited"
    source = "compositeWithTrainedAlgorithmicMedia" if edited else "trainedAlgorithmicMedia"
    agent = {"name": row["generator"]["name"], "version": row["generator"]["revision"] or "unknown"}
    action = {
        "action": "c2pa.created",
        "digitalSourceType": IPTC + source,
        "softwareAgent": agent,
    }
    definition = {
        "claim_generator_info": [{"name": "MAI", "version": __version__}],
        "title": f"{row['id']}.png",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    settings = c2pa.Settings.from_dict(
        {"verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False}}
    )
    try:
        info = c2pa.C2paSignerInfo(alg=key.algorithm, sign_cert=key.chain, private_key=key.key, ta_url=None)
        builder = c2pa.Builder(json.dumps(definition), context=c2pa.Context(settings))
        out = io.BytesIO()
        builder.sign(c2pa.Signer.from_info(info), "image/png", io.BytesIO(png), out)
    except Exception as error:  # the library's errors share no base with ours
        raise UsageError(f"The file cannot be signed with that key: {str(error).splitlines()[0]}") from error
    return out.getvalue()
