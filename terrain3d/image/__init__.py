"""Image windows: masks and radiometry before matching."""
