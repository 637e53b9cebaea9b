"""Checks of a deployment: whether other machines can reach it, and whether its purpose is permitted.

Inferring emotions of people at work and in education is prohibited in the European Union, "except where the use of the
AI system is intended to be put in place or into the market for medical or safety reasons" (Regulation 2024/1689,
Art. 5(1)(f)). So an installation that other machines can reach must state its purpose, which is then logged.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

from fer_stream.errors import ConfigError
from fer_stream.settings.kinds import Purpose, host_port
from fer_stream.settings.origins import name_port

if TYPE_CHECKING:
    from fer_stream.settings.tree import LiveSettings, Settings

PROHIBITED = ("workplace", "education")
"""Purposes that need one of the law's exceptions."""


def loopback(host: str) -> bool:
    """Return whether a host (name or IP address) is a loopback address, which only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"  # DNS names are case-insensitive (RFC 4343)


def beyond(address: str) -> bool:
    """Return whether an aggregator's address is on another machine, or can be reached from one."""
    if not address.startswith("tcp://"):
        return False
    try:
        return not loopback(urlsplit(address).hostname or "")
    except ValueError:
        return True


def wildcard(address: str) -> bool:
    """Return whether an address stands for all those of its machine, so that nobody can connect to it."""
    if not address.startswith("tcp://"):
        return False
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return host == "*" or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def page_beyond(live: LiveSettings) -> str:
    """Return the address or name at which other machines can reach the live page, or an empty text.

    A page that is bound to loopback but has another host name (``live.hosts``) is served to others by a proxy.
    """
    if not loopback(host_port(live.bind)[0]):
        return live.bind
    names = (f"{name} (live.hosts)" for name in live.hosts if not loopback(name_port(name)[0]))
    return next(names, "")


def check_purpose(settings: Settings) -> None:
    """Refuse a prohibited purpose.

    Raises:
        ConfigError: the purpose is one of `PROHIBITED`, and no exception is stated.
    """
    deployment = settings.deployment
    if deployment.purpose in PROHIBITED and deployment.exception is None:
        raise ConfigError(
            f"deployment.purpose is {deployment.purpose}: inferring emotions of people at work or in education is "
            "prohibited in the European Union (AI Act, Art. 5(1)(f)), except for medical or safety reasons; if one of "
            "these applies, set deployment.exception to medical or safety"
        )


def check_reach(settings: Settings) -> None:
    """Require a purpose if other machines can reach the aggregator. The caller has checked for keys before.

    Raises:
        ConfigError: other machines can reach the aggregator's address, and no purpose is set.
    """
    _require_purpose(settings.address, beyond(settings.address), settings)


def check_page(settings: Settings) -> None:
    """As `check_purpose` and `check_reach`, for the live page."""
    check_purpose(settings)
    address = page_beyond(settings.live)
    _require_purpose(address, bool(address), settings)


def _require_purpose(address: str, reachable: bool, settings: Settings) -> None:
    if reachable and settings.deployment.purpose is None:
        raise ConfigError(
            f"{address} may be reached from other machines: state what it is used for with --purpose "
            f"(deployment.purpose), one of {', '.join(get_args(Purpose))}"
        )
