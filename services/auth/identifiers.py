"""New ids and secrets, from the operating system's randomness. The domain is given them."""

from __future__ import annotations

import base64
import secrets
import string

from services.auth.credential import KEY_ID_CHARS, SECRET_CHARS

_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
_ACCOUNT_ID_BYTES = 10


def new_account_id() -> str:
    """``acc_`` and 80 random bits in base32, lower case."""
    return "acc_" + base64.b32encode(secrets.token_bytes(_ACCOUNT_ID_BYTES)).decode().lower()


def new_key_id() -> str:
    """95 random bits as letters and digits. Not secret: it is logged and listed."""
    return _random_text(KEY_ID_CHARS)


def new_secret() -> str:
    """190 random bits as letters and digits."""
    return _random_text(SECRET_CHARS)


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(length))
