"""Detectors: find faces in an image."""
