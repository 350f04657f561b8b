"""Worlds, sensors, renderer and lidar of the embedded demo and of the tests."""
