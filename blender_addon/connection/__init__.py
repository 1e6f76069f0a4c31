"""The way to the server: client thread, server process, and the session that joins them to Blender."""
