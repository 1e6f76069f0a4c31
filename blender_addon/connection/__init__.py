"""The way to the server: client thread, server process, jobs. Nothing here knows bpy."""
