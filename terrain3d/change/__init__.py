"""Change between two epochs: co-registration, significance, regions."""
