"""What is drawn of any rig, however it is spoilt, placed and moved, is what moves visible flesh, and labels
cover what is rendered; `pytest --hypothesis-profile=endurance` tries many more."""

import bpy
import numpy as np
from hypothesis import given, settings

from tests.addon.any_rig import LAST, Built, plans
from tests.addon.rigs import export


@settings(max_examples=settings.default.max_examples // 7, deadline=None)
@given(plans())
def test_what_moves_visible_flesh_is_drawn_and_labelled(addon, plan):
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    rig = Built(plan)
    clip = export([rig.subject], num_frames=LAST)
    [subject] = clip.subjects
    limb_of = {bone: limb for limb, made in enumerate(subject.choice.limbs) for bone in made.bones}
    assert set(limb_of) == set(rig.real), subject.choice.reasons

    pixels, bones = rig.seen(clip)
    labels = clip.first_labels[tuple(pixels.T)].astype(int)
    expected = np.array([limb_of[bone] + 1 if bone else 0 for bone in bones])
    assert (expected > 0).sum() >= 8, "too little of it is in view to tell"
    assert (labels == expected)[expected > 0].mean() > 0.9
    assert (labels > 0)[expected == 0].mean() < 0.02
    assert all((cells > 0).any() for cells in clip.part_maps)
