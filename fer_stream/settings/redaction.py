"""Removes secrets from addresses before they are shown or logged."""

from __future__ import annotations

import re

_USER = re.compile(
    r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s:]*):\S*@"
)  # a password may contain any character, also "/"
_SECRET = re.compile(r"(?i)(?P<before>[?&;/_](?:\w*(?:pass|pwd|token|secret|key|auth|sig)\w*)=)[^&;#\s]*")
_OPTION = re.compile(
    r'(?i)(?P<before>[{,] ?"?\w*(?:pass|pwd|token|secret)\w*"? = )"(?!(?:env|file):)(?:[^"\\]|\\.)*"'
)  # in a table of TOML


def redact(address: str) -> str:
    """Return an address, or any text that contains addresses or options, without their passwords, tokens and keys."""
    address = _OPTION.sub(r'\g<before>"***"', address)
    return _SECRET.sub(r"\g<before>***", _USER.sub(r"\g<before>:***@", address))
