"""The scene's camera: flown in a 3D view, or moved by moves that stay editable."""
