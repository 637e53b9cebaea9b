"""Where and what for an installation runs: what other machines can reach, and what the law lets it be used for.

Inferring emotions of people at work and in education is prohibited in the European Union, "except where the use of the
AI system is intended to be put in place or into the market for medical or safety reasons" (Regulation 2024/1689,
Art. 5(1)(f)). So the purpose is asked for where other machines can reach an installation, and told in its log.
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
"""Purposes that need a reason that the law knows."""


def loopback(host: str) -> bool:
    """Return whether a host, by name or number, is this machine as only itself can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"  # DNS names have no case (RFC 4343)


def beyond(address: str) -> bool:
    """Return whether an aggregator's address can be reached from, or lies on, another machine."""
    if not address.startswith("tcp://"):
        return False
    try:
        return not loopback(urlsplit(address).hostname or "")
    except ValueError:
        return True


def page_beyond(live: LiveSettings) -> str:
    """Return where other machines can reach the live page, or an empty text.

    A page at loopback that is called by another name than this machine's stands behind a proxy, for others.
    """
    if not loopback(host_port(live.bind)[0]):
        return live.bind
    names = (f"{name} (live.hosts)" for name in live.hosts if not loopback(name_port(name)[0]))
    return next(names, "")


def check_purpose(settings: Settings) -> None:
    """Refuse what is prohibited.

    Raises:
        ConfigError: the purpose is one of `PROHIBITED`, and no exception is stated.
    """
    where = settings.deployment
    if where.purpose in PROHIBITED and where.exception is None:
        raise ConfigError(
            f"deployment.purpose is {where.purpose}: inferring emotions of people at work or in education is "
            "prohibited in the European Union (AI Act, Art. 5(1)(f)) but for medical or safety reasons; if one of "
            "these is yours, set deployment.exception to medical or safety"
        )


def check_reach(settings: Settings) -> None:
    """Refuse to be reached from other machines for no purpose; whether there are keys has been asked before.

    Raises:
        ConfigError: the aggregator's address lies beyond this machine, and no purpose is set.
    """
    _ask(settings.address, beyond(settings.address), settings)


def check_page(settings: Settings) -> None:
    """As `check_purpose` and `check_reach`, for the live page."""
    check_purpose(settings)
    where = page_beyond(settings.live)
    _ask(where, bool(where), settings)


def _ask(address: str, reached: bool, settings: Settings) -> None:
    if reached and settings.deployment.purpose is None:
        raise ConfigError(
            f"{address} may be reached from other machines: say with --purpose (deployment.purpose) what for; "
            f"there are {', '.join(get_args(Purpose))}"
        )
