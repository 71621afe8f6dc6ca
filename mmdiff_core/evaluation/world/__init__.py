"""`evaluate world`: a procedural world, where what was to be drawn is known to the pixel."""
