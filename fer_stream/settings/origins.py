"""The host names of the live page, in settings and in requests (``Host``, ``Origin``). Pure functions, no I/O.

A proxy may change ``Host``: it may omit the port (nginx's ``$host``) or insert the address of the page's own server
(nginx's default). A proxy does not change the browser's ``Origin``, and no script can set it. So an origin is the
page's own if it matches ``Host`` or the settings.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

USUAL = {"http": 80, "https": 443}
"""The default ports, which an origin omits."""

_NAME = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"


def name_port(text: str) -> tuple[str, int | None]:
    """Return the name (lower case, ASCII, no final dot) and the port of ``NAME``, ``NAME:PORT`` or ``[IPV6]:PORT``.

    Raises:
        ValueError: ``text`` has none of these forms.
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
    """Return ``text`` unchanged if it is a host name, with or without a port.

    Raises:
        ValueError: it is not.
    """
    name_port(text)
    return text


def base_path(text: str) -> str:
    """Return ``text`` unchanged if it is a path that needs no escaping in a URL or in a header.

    Raises:
        ValueError: it is not.
    """
    if not re.fullmatch(r"/([A-Za-z0-9._~-]+/)*", text) or {".", ".."} & set(text.split("/")):
        raise ValueError("must be a path that begins and ends with /, such as /fer/, with letters, digits and . _ ~ -")
    return text


def ancestor(text: str) -> str:
    """Return ``text`` unchanged if it is valid in a ``frame-ancestors`` policy: ``self``, or an origin.

    The host name of the origin may begin with ``*.``.

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
    """The host names of one page."""

    def __init__(self, own: Iterable[str], given: Iterable[str], strangers: bool) -> None:
        """Store the names.

        Args:
            own: names of the machine that serves the page.
            given: names in the settings by which browsers reach the page, each with or without a port.
            strangers: whether ``Host`` may be any IP address; otherwise only a loopback address.
        """
        self._own = {name.lower() for name in own}
        self._given = {name_port(name) for name in given}
        self._any_ip = strangers

    def known(self, host: str) -> bool:
        """Return whether a ``Host`` is one of the page's names, with any port.

        An IP address is safe, because an attack by DNS rebinding needs a name.
        """
        try:
            name, _ = name_port(host)
        except ValueError:
            return False
        if name in self._own or name in {given for given, _ in self._given}:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or self._any_ip
        except ValueError:
            return False

    def same(self, origin: str, host: str, encrypted: bool) -> bool:
        """Return whether an ``Origin`` is the page's own.

        Args:
            origin: the header ``Origin`` of the request.
            host: the header ``Host`` of the request; `known` has accepted it.
            encrypted: whether the browser is known to have used TLS; then an ``http`` origin is another page.
        """
        scheme, _, rest = origin.partition("://")
        try:
            name, port = name_port(rest)
            host_name, host_port = name_port(host)
        except ValueError:
            return False
        if scheme not in USUAL or (encrypted and scheme != "https"):
            return False
        effective = port or USUAL[scheme]
        ports = {given for named, given in self._given if named == name}
        if effective in ports:
            return True
        if name == host_name and host_port is not None:
            return effective == host_port
        if name == host_name and effective == USUAL[scheme]:
            return True
        # The proxy omitted the port or replaced the name. Only the proxy uses TLS, so its port differs from ours.
        return None in ports or (name == host_name and scheme == "https" and not ports)
