"""The summary at the end of a run: the outcome of every frame, counts of events, and undelivered events."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from fer_stream.errors import FerStreamError
from fer_stream.operations.logs import stderr

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fer_stream.service.progress import Progress


def summary(progress: Progress, sinks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary, as JSON: each camera's ledger, counts of events, the states of ``sinks``, and times."""
    return {
        "cameras": progress.ledgers(),
        "events": dict(sorted(progress.events.items())),
        "sinks": dict(sinks),
        "started": round(progress.started, 3),
        "duration_s": round(time.monotonic() - progress.begin, 3),
    }


def tell(made: dict[str, Any]) -> None:
    """Print a summary as text on stderr."""
    lines = [f"ran for {made['duration_s']:.1f} s"]
    for name, ledger in made["cameras"].items():
        reasons = {term.removeprefix("rejected_"): n for term, n in ledger.items() if term.startswith("rejected_")}
        why = f" ({', '.join(f'{n} {reason}' for reason, n in reasons.items())})" if reasons else ""
        others = [
            f"{n} {term.replace('_', ' ')}{why if term == 'rejected' else ''}"
            for term, n in ledger.items()
            if n and term != "captured" and not term.startswith("rejected_")
        ]
        lines.append(f"{name}: {ledger['captured']} frames captured = {' + '.join(others) or '0'}")
    lines.append("events: " + (", ".join(f"{n} {kind}" for kind, n in made["events"].items()) or "none"))
    lines += [f"sink {line}" for line in (*lost(made), *waiting(made))]
    stderr.write("\n".join(lines) + "\n")


def lost(made: dict[str, Any]) -> list[str]:
    """Return a sentence if events were not printed."""
    return [
        f"{title}: {sink['undelivered']} of {sink['delivered'] + sink['undelivered']} events were not printed: "
        f"{sink['error']}"
        for title, sink in made["sinks"].items()
        if sink["undelivered"] and title.startswith("stdout:")
    ]


def waiting(made: dict[str, Any]) -> list[str]:
    """Return a sentence for each sink that has not taken all events."""
    return [
        f"{title}: {sink['behind']} events wait, and are delivered at the next start"
        + (f": {sink['error']}" if sink["error"] else "")
        for title, sink in made["sinks"].items()
        if sink["behind"] and not title.startswith("stdout:")
    ]


def write(path: Path, made: dict[str, Any]) -> None:
    """Write a summary to a file as JSON.

    Raises:
        FerStreamError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise FerStreamError(f"the summary {path} cannot be written: {error.strerror}") from error
