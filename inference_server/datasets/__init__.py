"""Examples and sets of them, which training, synthesis, evaluation and XPose share."""
