"""The live view: the picture of the pose as it is now, while one poses, scrubs or plays."""
