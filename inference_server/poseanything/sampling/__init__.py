"""From conditions to frames: the pipeline, its schedulers, guiders, caches and decoding."""
