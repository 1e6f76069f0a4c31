"""The demo: a scene, the installed extension, the server, and a film at the end of it."""
