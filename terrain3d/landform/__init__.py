"""What is read off a height raster: slope and shading, contours, sections, volumes, the way water takes."""
