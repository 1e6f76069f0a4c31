"""From the scene to a request: the range of frames, the view, what is exported and what is recorded."""
