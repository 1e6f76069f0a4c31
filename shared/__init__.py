"""The contract between the Blender extension and the inference server: numpy and msgpack, nothing else."""

__version__ = "0.1.0"
