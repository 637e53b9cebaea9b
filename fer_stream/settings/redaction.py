"""Removes secrets from addresses before they are shown or logged."""

from __future__ import annotations

import re

_USER = re.compile(
    r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s:]*):\S*@"
)  # a password may contain any character, also "/"
_SECRET = re.compile(r"(?i)(?P<before>[?&;/_](?:\w*(?:pass|pwd|token|secret|key|auth|sig)\w*)=)[^&;#\s]*")


def redact(address: str) -> str:
    """Return an address, or any text that contains addresses, without their passwords, tokens and keys."""
    return _SECRET.sub(r"\g<before>***", _USER.sub(r"\g<before>:***@", address))
