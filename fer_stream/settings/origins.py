"""The names of a page, in settings and in requests (``Host``, ``Origin``). Pure.

A proxy may change ``Host``: it may leave the port out (nginx's ``$host``) or put in the address of the page's own
server (nginx's default). A browser's ``Origin`` is not changed on the way, and no script can set it. So an origin is
the page's own if it is what ``Host`` says, or what the settings say.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

USUAL = {"http": 80, "https": 443}
"""The ports that an origin leaves out."""

_NAME = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"


def name_port(text: str) -> tuple[str, int | None]:
    """Return the name (lower case, ASCII, no final dot) and the port of ``NAME``, ``NAME:PORT`` or ``[IPV6]:PORT``.

    Raises:
        ValueError: it is none of these.
    """
    found = re.fullmatch(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+)(:(?P<port>[0-9]{1,5}))?", text)
    if found is None:
        raise ValueError(_WRONG_NAME)
    name = found["name"].removesuffix(".")
    try:
        name = str(ipaddress.IPv6Address(name[1:-1])) if name.startswith("[") else name.encode("idna").decode()
    except ValueError:
        raise ValueError(_WRONG_NAME) from None
    port = int(found["port"]) if found["port"] else None
    if not (":" in name or re.fullmatch(_NAME, name)) or (port is not None and port > 65_535):
        raise ValueError(_WRONG_NAME)
    return name.lower(), port


_WRONG_NAME = "must be NAME or NAME:PORT, such as cameras.example.org:8443, without http:// and without a path"


def page_name(text: str) -> str:
    """Return a name of the page, with or without a port.

    Raises:
        ValueError: it is none.
    """
    name_port(text)
    return text


def base_path(text: str) -> str:
    """Return a path that can stand in an address and in a header as it is.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"/([A-Za-z0-9._~-]+/)*", text) or {".", ".."} & set(text.split("/")):
        raise ValueError("must be a path that begins and ends with /, such as /fer/, of letters, digits and . _ ~ -")
    return text


def ancestor(text: str) -> str:
    """Return ``self`` or an origin, which may begin with ``*.``, as it can stand in a policy.

    Raises:
        ValueError: it is neither.
    """
    scheme, _, rest = text.partition("://")
    try:
        if text != "self" and (scheme not in USUAL or not rest.isascii()):
            raise ValueError
        name_port(rest.removeprefix("*.") if text != "self" else text)
    except ValueError:
        raise ValueError(
            "must be self, or an origin such as https://home.example.org:8123 or https://*.example.org, without a path"
        ) from None
    return text


class Names:
    """The names of one page."""

    def __init__(self, own: Iterable[str], given: Iterable[str], strangers: bool) -> None:
        """Take the names.

        Args:
            own: of the machine that serves the page.
            given: by which browsers call it, each with or without a port.
            strangers: whether it may be called by any IP address; else by those of loopback alone.
        """
        self._own = {name.lower() for name in own}
        self._given = {name_port(name) for name in given}
        self._strangers = strangers

    def known(self, host: str) -> bool:
        """Return whether a ``Host`` is one of the page's, whatever its port.

        An IP address is safe: no foreign DNS entry can make it point to this machine.
        """
        try:
            name, _ = name_port(host)
        except ValueError:
            return False
        if name in self._own or name in {given for given, _ in self._given}:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or self._strangers
        except ValueError:
            return False

    def same(self, origin: str, host: str, encrypted: bool) -> bool:
        """Return whether an ``Origin`` is the page's own.

        Args:
            origin: as the browser sent it.
            host: the ``Host`` that came with it, which is `known`.
            encrypted: whether the browser is known to have used TLS: then a page without TLS is another one.
        """
        scheme, _, rest = origin.partition("://")
        try:
            name, port = name_port(rest)
            asked, at = name_port(host)
        except ValueError:
            return False
        if scheme not in USUAL or (encrypted and scheme != "https"):
            return False
        effective = port or USUAL[scheme]
        ports = {given for named, given in self._given if named == name}
        if effective in ports:
            return True
        if name == asked and at is not None:
            return effective == at
        if name == asked and effective == USUAL[scheme]:
            return True
        # The proxy left out the port, or the whole name. Only the proxy speaks TLS, so its port differs from ours.
        return None in ports or (name == asked and scheme == "https" and not ports)
