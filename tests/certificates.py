"""Certificates for servers of an hour's life."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, and the PEM files that they are in."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey
    cert: Path
    key: Path


def issue(
    folder: Path, *hosts: str, issuer: Issued | None = None, minutes: int = 60
) -> Issued:
    """Write a certificate for some hosts, signed by its own key or by an issuer.

    Without hosts it is an authority's. It expires after `minutes`.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    title = hosts[0] if hosts else "authority"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(minutes=minutes))
        .add_extension(x509.BasicConstraints(not hosts, None), critical=True)
    )
    if hosts:
        names = x509.SubjectAlternativeName([*map(_name, hosts)])
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(issuer.private_key if issuer else key, hashes.SHA256())
    issued = Issued(certificate, key, folder / f"{title}.crt", folder / f"{title}.key")
    issued.cert.write_bytes(certificate.public_bytes(Encoding.PEM))
    issued.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return issued


def _name(host: str) -> x509.GeneralName:
    """Return a host's name or address as certificates have it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
