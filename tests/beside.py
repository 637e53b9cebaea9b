"""What lies beside the project, in ../shared: a test that needs it fails where it is missing, and says so."""

from __future__ import annotations

from pathlib import Path

_SHARED = Path(__file__).parents[1] / "../shared"


def clips() -> list[Path]:
    """Return every real clip."""
    return sorted(path for path in _there("media").iterdir() if path.suffix in {".mp4", ".gif"})


def clip(name: str) -> Path:
    """Return a real clip."""
    return _there(f"media/{name}")


def fer2013() -> Path:
    """Return the command that unpacks FER2013 into a folder."""
    return _there("data/fer2013/unpack.py")


def _there(name: str) -> Path:
    path = _SHARED / name
    assert path.exists(), f"{path} is needed: real clips and faces lie beside the project"
    return path
