"""Weights as users have them: the official release's files, diffusers folders, Wan's own, LoRAs, GGUF and fp8."""
