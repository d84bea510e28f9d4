"""Certificates of nobody: an authority, and a server on this machine."""

import datetime as dt
import ipaddress
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


def write_certificates(folder, *, server_valid=(-DAY, DAY), server_signs_itself=False):
    """Write `authority.pem`, and `server.pem` with its key.

    Args:
        server_valid: The begin and end of the server's certificate, from now.
    """
    authority_key, name = ec.generate_private_key(ec.SECP256R1()), _name("An authority of nobody")
    authority = _signed(name, authority_key, name, authority_key, is_authority=True)
    (folder / "authority.pem").write_bytes(_pem(authority))
    key = ec.generate_private_key(ec.SECP256R1())
    issuer, issuer_key = (_name("server"), key) if server_signs_itself else (name, authority_key)
    certificate = _signed(
        _name("server"), key, issuer, issuer_key, is_authority=False, valid=server_valid
    )
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.pem").write_bytes(_pem(certificate) + text)


def server_context(folder):
    """Return what secures a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def _signed(subject, key, issuer, issuer_key, *, is_authority, valid=(-DAY, DAY)):
    now = dt.datetime.now(dt.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    identifier = x509.SubjectKeyIdentifier.from_public_key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(identifier(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if is_authority:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(
            x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True
        )
    return builder.sign(issuer_key, hashes.SHA256())
