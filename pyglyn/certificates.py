"""Make a CA and certificates for nodes: for tests and first trials of TLS. Layer: certificates.

Needs the package ``cryptography`` (the extra ``tls``). A cluster that matters has a CA of its own.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


@attrs.frozen
class Authority:
    """A CA, and the folder in which it is."""

    folder: Path
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    @property
    def path(self) -> Path:
        """The file with its certificate."""
        return self.folder / "ca.pem"


def authority(folder: Path, *, days: float = 365, name: str = "pyglyn test CA") -> Authority:
    """Take the CA that is in a folder, or make one there.

    Raises:
        ImportError: there is no ``cryptography``.
        OSError: the folder cannot be written to.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(parents=True, exist_ok=True)
    certificate_path, key_path = folder / "ca.pem", folder / "ca-key.pem"
    if certificate_path.exists():
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return Authority(folder, certificate, key)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    public = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, subject, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(public, critical=False)
        .sign(key, _hash())
    )
    _write(certificate_path, _pem(certificate))
    _write(key_path, _key_pem(key), secret=True)
    return Authority(folder, certificate, key)


def for_node(ca: Authority, node: str, *, days: float = 365, host: str | None = None) -> Path:
    """Make a certificate and a key for a node; returns the option file for OTP and for pyglyn.

    Args:
        ca: who signs it.
        node: ``name@host``.
        days: how long it is valid; less than none makes one that has expired.
        host: what it is for, if not the host of the name.

    Raises:
        OSError: the folder cannot be written to.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    host = host or node.partition("@")[2]
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        for_host: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        for_host = x509.DNSName(host)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    certificate = (
        _builder(_name(node), ca.certificate.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.SubjectAlternativeName([for_host]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(ca.key, _hash())
    )
    certificate_path, key_path = ca.folder / f"{node}.pem", ca.folder / f"{node}-key.pem"
    _write(certificate_path, _pem(certificate))
    _write(key_path, _key_pem(key), secret=True)
    option_file = ca.folder / f"{node}.conf"
    common = "".join(
        f"    {{{name}, {json.dumps(str(path.resolve()))}}},\n"
        for name, path in (("certfile", certificate_path), ("keyfile", key_path), ("cacertfile", ca.path))
    )
    option_file.write_text(
        f"[{{server, [\n{common}    {{verify, verify_peer}},\n    {{fail_if_no_peer_cert, true}}]}},\n"
        f" {{client, [\n{common}    {{verify, verify_peer}}]}}].\n"
    )
    return option_file


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: float
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - datetime.timedelta(days=1))
        .not_valid_after(end)
    )


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _usage(*, authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _hash() -> hashes.SHA256:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Write a file anew, so that whoever reads it meanwhile has the old one or the new one."""
    draft = path.with_name(path.name + ".new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if secret else 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    draft.replace(path)
