"""terrain3d: satellite stereo and spaceborne lidar to terrain models with an honest sigma, and to change."""

__version__ = "0.1.0"
