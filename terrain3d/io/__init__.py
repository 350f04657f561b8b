"""Files: the only package that opens them, but for camera/read, camera/write and the lidar readers."""
