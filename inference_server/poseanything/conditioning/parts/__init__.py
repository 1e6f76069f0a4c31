"""From poses to the part masks that the Part-aware Temporal Coherence Module works on (paper section 4.2)."""

from .dilation import dilate, dilation_alpha
from .matching import match_parts
from .merging import merge_parts
from .plan import PartPlan, plan_parts
from .segments import split_segments, squash, subject_from_cutout
from .tokens import token_masks
from .truth import parts_from_truth

__all__ = [
    "PartPlan",
    "dilate",
    "dilation_alpha",
    "match_parts",
    "merge_parts",
    "parts_from_truth",
    "plan_parts",
    "split_segments",
    "squash",
    "subject_from_cutout",
    "token_masks",
]
