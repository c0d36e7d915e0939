"""Certificate authorities, certificates and revocation lists, made for one test run."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


@dataclass
class Issued:
    """A certificate in a file, its key in another."""

    certificate: Path
    key: Path
    parsed: x509.Certificate


class Authority:
    """A CA with files in `directory`."""

    def __init__(self, directory, name="Test CA"):
        self.directory = directory
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.private_key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self.name, self.private_key, None, None)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = x509.KeyUsage(*(i in (5, 6) for i in range(9)))  # certificates and revocation lists
        builder = builder.add_extension(usage, critical=True)
        self.parsed = builder.sign(self.private_key, hashes.SHA256())
        self.certificate = self._write(f"{name}.pem", pem(self.parsed))

    def issue(
        self,
        *names,
        file="server",
        client=False,
        key="ec",
        starts=None,
        ends=None,
        form="pkcs8",
        password=None,
    ):
        """A certificate for the names; `form` is pkcs8 or traditional (PKCS#1 or SEC1)."""
        private = (
            ec.generate_private_key(ec.SECP256R1()) if key == "ec" else rsa.generate_private_key(65537, 2048)
        )
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Shop"),
                x509.NameAttribute(NameOID.COMMON_NAME, names[0]),
            ]
        )
        builder = self._builder(subject, private, starts, ends)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([general(name) for name in names]), critical=False
        )
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        parsed = builder.sign(self.private_key, hashes.SHA256())
        forms = {
            "pkcs8": serialization.PrivateFormat.PKCS8,
            "traditional": serialization.PrivateFormat.TraditionalOpenSSL,
        }
        encryption = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        text = private.private_bytes(serialization.Encoding.PEM, forms[form], encryption)
        return Issued(self._write(f"{file}.pem", pem(parsed)), self._write(f"{file}.key", text), parsed)

    def revocation_list(self, *revoked):
        """A file with a list of these certificates."""
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateRevocationListBuilder(self.name, now - DAY, now + DAY)
        for issued in revoked:
            entry = x509.RevokedCertificateBuilder(issued.parsed.serial_number, now - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        number = x509.CRLNumber(1)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key())
        builder = builder.add_extension(number, critical=False).add_extension(identifier, critical=False)
        return self._write("revoked.pem", pem(builder.sign(self.private_key, hashes.SHA256())))

    def _builder(self, subject, key, starts, ends):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + (starts if starts is not None else -DAY))
            .not_valid_after(now + (ends if ends is not None else 30 * DAY))
        )

    def _write(self, name, data):
        path = self.directory / name
        path.write_bytes(data)
        return path


def general(name):
    """A subjectAltName: an address or a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem(made):
    return made.public_bytes(serialization.Encoding.PEM)
