"""``fer-stream deliver``: hands the events over to sinks, at least once each, and records how far each is."""
