"""Where the subject is in every frame (stage 2)."""
