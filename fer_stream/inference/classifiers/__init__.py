"""Classifiers: score the apparent expressions of faces."""
