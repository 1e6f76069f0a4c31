"""XPose (paper section 3): from videos to pose-video pairs, by stages that can be replaced."""
