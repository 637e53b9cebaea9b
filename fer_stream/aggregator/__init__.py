"""The aggregator: assigns frames to workers, turns their results into events, journals and publishes them."""
