"""Dreamlathe's backend: from a request to a textured mesh. Knows nothing of Blender; importing it costs nothing."""
