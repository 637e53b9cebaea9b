"""Write ``models/SHA256SUMS``, against which fer_stream checks its own model files when it opens them.

python -m training.manifest         # to check them by hand: (cd models && sha256sum --check SHA256SUMS)
"""

from __future__ import annotations

import hashlib
from pathlib import Path

MODELS = Path(__file__).resolve().parents[1] / "models"
"""The folder of the checkout's model files."""


def write(models_dir: Path = MODELS) -> dict[str, str]:
    """Write the SHA-256 of every ``*.onnx`` in a folder into its ``SHA256SUMS``; return ``{name: digest}``."""
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(models_dir.glob("*.onnx"))}
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    (models_dir / "SHA256SUMS").write_text(lines, encoding="ascii")
    return digests


if __name__ == "__main__":
    for name, digest in write().items():
        print(f"{digest}  {name}")
