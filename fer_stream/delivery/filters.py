"""Which events a sink gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.client.subscription import wanted
from fer_stream.types import EventType, ExpressionData

if TYPE_CHECKING:
    from fer_stream.settings.tree import DeliverSettings
    from fer_stream.types import Event


class Filter:
    """The filters in a sink's settings. A ``stream.gap`` passes all of them: it says that events are missing."""

    def __init__(self, settings: DeliverSettings) -> None:
        self._cameras, self._labels = frozenset(settings.cameras), frozenset(settings.labels)
        self._types, self._least = tuple(settings.types), settings.min_probability

    def passes(self, event: Event) -> bool:
        """Return whether the sink gets this event."""
        if event.type is EventType.STREAM_GAP:
            return True
        if (self._cameras and event.camera not in self._cameras) or not wanted(event, self._types):
            return False
        data = event.data
        if not isinstance(data, ExpressionData):
            return True
        return (not self._labels or data.label in self._labels) and data.probability.peak >= self._least
