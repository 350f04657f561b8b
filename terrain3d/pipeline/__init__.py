"""Stages of a run, memory plan, tiles, and the order in which they go."""
