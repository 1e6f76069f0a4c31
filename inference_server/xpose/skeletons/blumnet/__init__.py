"""BlumNet (Zhang et al., 2022), the release's skeleton extractor: short lines and key points by Deformable
DETR, made a graph of."""
