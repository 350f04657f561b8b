"""Spaceborne lidar: granules to ground returns with quality rules."""
