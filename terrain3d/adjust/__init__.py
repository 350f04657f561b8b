"""Tie points, tracks and bundle adjustment."""
