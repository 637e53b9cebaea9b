"""From faces to events: tracks, smoothing, intervals, what to look at next, and events as CloudEvents."""
