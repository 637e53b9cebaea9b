"""References to passwords: a source names where its password is (``env:NAME``, ``file:PATH``) and does not hold it.

::

    rtsp://user:env:DOOR_PASSWORD@192.0.2.10/stream
    rtsp://user:file:/run/secrets/door@192.0.2.10/stream
    http://192.0.2.10/video.mjpg?token=file:/run/secrets/door

A reference stands in the place of the password of an address, or of a parameter that `fer_stream.settings.redaction`
hides. It is resolved whenever the source is opened, so a password can be replaced without a restart.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from fer_stream.errors import SourceError
from fer_stream.settings.redaction import redact
from fer_stream.system import files, folders

_REFERENCE = r"(?P<kind>env|file):(?P<name>[^@&;#?\s]+)"
_PASSWORD = re.compile(rf"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s:@]*:){_REFERENCE}(?=@)")
_PARAMETER = re.compile(
    rf"(?i)(?P<before>[?&;/_](?:\w*(?:pass|pwd|token|secret|key|auth|sig)\w*)=){_REFERENCE}(?=[&;#]|$)"
)
_EMPTY = re.compile(r"(://[^/?#\s:@]*):(?=@)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def in_clear(source: str) -> bool:
    """Return whether a source holds a password, token or key itself."""
    rest = _PARAMETER.sub("?", _PASSWORD.sub(r"\g<before>", source))
    rest = _EMPTY.sub(r"\1", rest)  # an empty password is no secret
    return redact(rest) != rest


def displayed(source: str) -> str:
    """Return a source as people may see it: with its references, and without passwords."""
    return redact(source) if in_clear(source) else source


def resolve(source: str) -> str:
    """Return a source, or another address, with the passwords in place of the references to them.

    Raises:
        SourceError: a variable is not set, or a file cannot be read, is empty, or may be read by others. It is
            transient for a file, which may appear later.
    """
    for pattern in (_PASSWORD, _PARAMETER):
        source = pattern.sub(lambda found: found["before"] + quote(_secret(found["kind"], found["name"]), ""), source)
    return source


def without(source: str) -> str:
    """Return an address with ``x`` in place of each reference, to check its form while no password can be read."""
    for pattern in (_PASSWORD, _PARAMETER):
        source = pattern.sub(r"\g<before>x", source)
    return source


def secret(reference: str) -> str:
    """Return the secret that a setting of the kind `fer_stream.settings.kinds.Reference` names.

    Raises:
        SourceError: as `resolve`.
    """
    kind, _, name = reference.partition(":")
    return _secret(kind, name)


def _secret(kind: str, name: str) -> str:
    if kind == "env":
        if not _VARIABLE.fullmatch(name) or not (secret := os.environ.get(name)):
            raise SourceError(
                f"a password is in the variable {name}, which is not set: set it where the service "
                "starts, and start it again"
            )
        return secret
    path = folders.expand(Path(name))
    try:
        if not path.is_absolute():
            raise SourceError(f"the password file {path} needs a complete path, such as /run/secrets/door")
        if files.readable_by_others(path.stat()):
            raise SourceError(f"others may read the password file {path}: chmod 600 it", transient=True)
        secret = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SourceError(f"the password file {path} cannot be read: {reason}", transient=True) from error
    if not secret:
        raise SourceError(f"the password file {path} is empty: write the password into it", transient=True)
    return secret
