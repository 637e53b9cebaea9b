"""The resource limits of this process, where the operating system has them."""

from __future__ import annotations

from fer_stream.system import standard

_resource = standard.module("resource")

_MOST = 10_240
"""``OPEN_MAX`` of macOS, where the hard limit of descriptors says "unlimited", but a higher one cannot be set."""


def hard(name: str) -> int:
    """Return a hard limit, such as ``RLIMIT_NOFILE``; -1 if there is none.

    Raises:
        OSError: this process may not ask.
    """
    return -1 if _resource is None else int(_resource.getrlimit(getattr(_resource, name))[1])


def soft(name: str) -> int:
    """Return a soft limit; -1 if there is none."""
    return -1 if _resource is None else int(_resource.getrlimit(getattr(_resource, name))[0])


def lift(name: str) -> None:
    """Raise a soft limit to the hard one.

    Raises:
        OSError: this process may not do that.
    """
    if _resource is None:
        return
    number = getattr(_resource, name)
    most = _resource.getrlimit(number)[1]
    try:
        _resource.setrlimit(number, (most, most))
    except ValueError:
        _resource.setrlimit(number, (min(_MOST, most) if most >= 0 else _MOST, most))
