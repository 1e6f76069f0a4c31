"""Takes: folders of frames on disk, and the strips that show them."""
