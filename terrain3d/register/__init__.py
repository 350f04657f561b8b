"""Registration of the stereo model to lidar ground returns, with hold-out validation."""
