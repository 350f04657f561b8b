"""Surfaces: DSM, voids, DTM, canopy height, ortho, water."""
