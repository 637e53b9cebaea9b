"""The aggregator: gives frames to workers, makes events of their results, journals and publishes them."""
