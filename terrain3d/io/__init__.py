"""Files: the only package, with the camera and lidar readers, that opens them."""
