"""Fuzz one target guided by coverage (atheris, which is libFuzzer): ``guided.py TARGET [RUNS [LIBFUZZER_FLAGS]]``.

An input that raises anything except its target's error, or that takes more than 10 s or 1.5 GB, ends it and is saved in
``runs/fuzz``: add the input to `test_fuzz.FOUND`, and fix the bug.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

with atheris.instrument_imports(include=["fer_stream"]):
    from targets import TARGETS

OUT = Path(__file__).parents[2] / "runs" / "fuzz"


def main() -> None:
    name, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    target = TARGETS[name]
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            (Path(corpus) / str(number)).write_bytes(seed)
        limits = ["-timeout=10", "-rss_limit_mb=1536", "-max_len=4096" if name != "journal" else "-max_len=65536"]
        quiet = ["-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={OUT}/{name}-", "-seed=1"]
        atheris.Setup([sys.argv[0], corpus, f"-runs={runs}", *limits, *quiet, *sys.argv[3:]], target.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
