"""What Blender knows for certain about the pictures: the first frame, and which limb owns each pixel."""
