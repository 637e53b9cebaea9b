"""Pictures: JPEG headers and decoding, limits, motion, quality, privacy masks, colours."""
