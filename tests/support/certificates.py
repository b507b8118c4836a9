"""Certificates for tests: an authority of their own and what it signs, made with openssl."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, PEM files."""

    certificate_file: Path
    key_file: Path


class Authority:
    """Signs certificates for 127.0.0.1 and localhost."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self.directory = directory
        self.own = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
        _openssl("req", "-x509", *_KEY, "-subj", f"/CN={name}", "-days", "1", *_files(self.own))

    def sign(self, name: str, more: str = "") -> Certificate:
        """A certificate whose common name is ``name``; ``more`` of its subject is ``/O=...``."""
        signed = Certificate(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        authority = ("-CA", str(self.own.certificate_file), "-CAkey", str(self.own.key_file))
        escaped = re.sub(r"([\\/+])", r"\\\1", name)
        subject = ("-utf8", "-subj", f"/CN={escaped}{more}", "-addext", names, "-days", "1")
        _openssl("req", "-x509", *_KEY, *subject, *authority, *_files(signed))
        return signed


def _files(certificate: Certificate) -> tuple[str, ...]:
    return ("-out", str(certificate.certificate_file), "-keyout", str(certificate.key_file))


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
