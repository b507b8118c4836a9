"""The text of an API key: ``tm_<environment>_<key id>_<secret><checksum>``.

The checksum is the CRC-32 (ITU-T V.42, as in zlib) of all before it, as 8 lower-case hexadecimal
digits. It guards against typing, not against attack: every wrong character and every exchange of
two characters is rejected before anything is looked up. The secret alone proves the key.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

from services.auth.errors import CredentialMalformedError, CredentialMissingError

ENVIRONMENT_PATTERN = "[a-z][a-z0-9]{0,15}"
KEY_ID_CHARS = 16
SECRET_CHARS = 32
"""Letters and digits: 190 bits."""
CHECKSUM_CHARS = 8

OWN_PREFIX = "tm_"
_IMPORTED_FORM = re.compile("[!-~]{16,256}")
_FORM = re.compile(
    f"tm_({ENVIRONMENT_PATTERN})_([A-Za-z0-9]{{{KEY_ID_CHARS}}})"
    f"_([A-Za-z0-9]{{{SECRET_CHARS}}})([0-9a-f]{{{CHECKSUM_CHARS}}})"
)


@dataclass(frozen=True, slots=True)
class Credential:
    """A key as its holder presents it. Its ``repr`` and ``str`` do not show the secret."""

    environment: str
    """The mesh that the key is for: ``local``, ``prod``."""
    key_id: str
    secret: str = field(repr=False)

    @property
    def body(self) -> str:
        """All but the checksum: what the checksum and the stored hash are made of."""
        return f"tm_{self.environment}_{self.key_id}_{self.secret}"

    def reveal(self) -> str:
        """The whole text, secret included: for the answer that makes the key, and nothing else."""
        return self.body + _checksum(self.body)

    @staticmethod
    def parse(text: str) -> Credential:
        """The credential of a text, which may come from anyone.

        Raises ``CredentialMissingError`` for an empty text, and ``CredentialMalformedError`` for
        one that is no key or whose checksum differs. Looks nothing up.
        """
        if not text:
            raise CredentialMissingError
        form = _FORM.fullmatch(text)
        # A checksum is no secret: whoever wrote the text can compute it.
        if form is None or form[4] != _checksum(text[:-CHECKSUM_CHARS]):
            raise CredentialMalformedError
        return Credential(form[1], form[2], form[3])


@dataclass(frozen=True, slots=True)
class ImportedSecret:
    """What the holder of an imported key presents. Its ``repr`` does not show it."""

    text: str = field(repr=False)

    @staticmethod
    def parse(text: str) -> ImportedSecret:
        """Raises ``CredentialMalformedError`` for what can be no imported secret."""
        if _IMPORTED_FORM.fullmatch(text) is None or text.startswith(OWN_PREFIX):
            raise CredentialMalformedError
        return ImportedSecret(text)


def presented(text: str) -> Credential | ImportedSecret:
    """What a text claims to be: a key of ours when it begins as one, else an imported one's secret.

    Raises ``CredentialMissingError`` and ``CredentialMalformedError``.
    """
    if not text or text.startswith(OWN_PREFIX):
        return Credential.parse(text)
    return ImportedSecret.parse(text)


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
