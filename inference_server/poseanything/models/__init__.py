"""The networks: the video transformer, its part-aware attention, and the VAE frame by frame."""
