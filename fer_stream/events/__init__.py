"""Turns faces into events: tracks, smoothing, intervals, hints for the next frame, and CloudEvents."""
