"""A camera's ledger as Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.aggregator.ledger import REASONS
from fer_stream.operations import metrics

if TYPE_CHECKING:
    from fer_stream.aggregator.ledger import Ledger


class LedgerExport:
    """Adds the increments of a camera's ledger, which holds totals, to Prometheus counters."""

    def __init__(self, camera: str) -> None:
        self._camera = camera
        self._exported: dict[tuple[str, str], int] = {}

    def begin(self, ledger: Ledger) -> None:
        """Start from a ledger whose frames another process has exported already."""
        self._exported = self._terms(ledger)

    @staticmethod
    def _terms(ledger: Ledger) -> dict[tuple[str, str], int]:
        terms = {("rejected", reason): ledger.rejected.get(reason, 0) for reason in REASONS}
        for term in ("captured", "done", "superseded", "expired", "lost_worker", "lost_link"):
            terms[term, ""] = getattr(ledger, term)
        return terms

    def export(self, ledger: Ledger) -> None:
        """Add the increments since the last call to the counters, and set the number of frames in flight."""
        for (outcome, reason), total in self._terms(ledger).items():
            step = total - self._exported.get((outcome, reason), 0)
            if step > 0 or (outcome, reason) not in self._exported:
                metrics.frames.labels(self._camera, outcome, reason).inc(max(step, 0))
                self._exported[outcome, reason] = total
        metrics.in_flight.labels(self._camera).set(ledger.in_flight)
