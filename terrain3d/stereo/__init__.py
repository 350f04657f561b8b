"""Pair choice, epipolar resampling, matching and triangulation."""
