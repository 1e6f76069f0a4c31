"""Takes on disk: a folder each, with the frames and what they were made with."""
