"""Where the limbs and the camera are right now, read off what Blender has evaluated anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import bpy
import numpy as np

from ..request.export import ExportedClip
from ..rig.choice import user_overrides
from ..rig.sampling import Sampler
from ..rig.subjects import Subject
from ..rig.trained_look import unseen_of
from ..shared.pose import Limb, PoseSequence
from ..steps import at_once
from ..view import Fit, SceneCamera, Viewport
from ..view.motion import Backdrop
from ..view.projection import Projector


class Follower:
    """Reads the pose of an exported clip's limbs at any moment. `whole` turns false when an armature is gone
    or has other bones: then limbs have to be chosen anew."""

    def __init__(self, scene: bpy.types.Scene, view: SceneCamera | Viewport, clip: ExportedClip):
        self._scene, self._camera = scene.session_uid, 0
        self._view, self._limbs, self._parts = view, clip.pose.limbs, clip.pose.parts
        self._subjects = clip.subjects
        self._backdrop = Backdrop(clip.projector.lenses[0], clip.projector.fit)
        self._bind()

    def _bind(self) -> None:
        self._sampler = Sampler(self._subjects)
        self._bones = self._count_bones()
        self._chosen = self._choices()
        self.whole = True

    def _count_bones(self) -> list[int]:
        return [len(subject.armature.data.bones) for subject in self._subjects]

    def _choices(self) -> list[tuple]:
        """What the user says of limbs."""
        return [
            (user_overrides(data).tobytes(), data.poseanything.digits, data.poseanything.face)
            for data in (subject.armature.data for subject in self._subjects)
        ]

    @property
    def fit(self) -> Fit:
        return self._backdrop.fit

    @property
    def carriers(self) -> tuple[bpy.types.Object, ...]:
        """The armatures, or what instances them."""
        return tuple(
            subject.instancers[0] if subject.instancers else subject.armature for subject in self._subjects
        )

    def limbs_changed(self) -> bool:
        """Whether limbs have to be chosen anew."""
        return not self.whole or self._choices() != self._chosen

    def rebind(self) -> None:
        """Undo has made new objects of all: find them by what stays."""
        objects = {obj.session_uid: obj for obj in bpy.data.objects}
        if self._camera:
            self._view = SceneCamera(objects.get(self._camera))
        there = not self._camera or self._camera in objects
        found = [_found(subject, uids, objects) for subject, uids in zip(self._subjects, self._uids)]
        self.whole = there and bool(found) and all(subject is not None for subject in found)
        if self.whole:
            chosen, self._subjects = self._chosen, tuple(found)
            self._bind()
            self._chosen = chosen

    def remember(self) -> None:
        """Before undo: note by what the objects are found again."""
        own = self._view.camera if isinstance(self._view, SceneCamera) else None
        try:
            self._camera = own.session_uid if own is not None else 0
            self._uids = [
                (subject.armature.session_uid, [obj.session_uid for obj in subject.instancers])
                for subject in self._subjects
            ]
        except ReferenceError:  # one was removed
            self._uids = []

    def is_of(self, scene: bpy.types.Scene) -> bool:
        return scene.session_uid == self._scene

    def read(
        self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph
    ) -> tuple[PoseSequence, np.ndarray | None] | None:
        """The pose of the evaluated scene, a single frame, and how the background has moved since the first
        frame; None where bones or the camera are not there."""
        if not self.whole:
            return None
        if self._bones != self._count_bones():
            self.whole = False
            return None
        lens = self._view.lens(scene, depsgraph)
        joints = self._sampler.sample(depsgraph)[None]
        pose = draw(
            self._sampler, self._subjects, joints, Projector([lens], self.fit), self._limbs, self._parts
        )
        return pose, self._backdrop.motion(lens, scene, depsgraph, self._is_own)

    def _is_own(self, obj: bpy.types.Object) -> bool:
        return obj.find_armature() in [subject.armature for subject in self._subjects]


def _found(subject: Subject, uids, objects) -> Subject | None:
    armature, instancers = uids
    if armature not in objects or any(uid not in objects for uid in instancers):
        return None
    return replace(subject, armature=objects[armature], instancers=tuple(objects[uid] for uid in instancers))


def draw(
    sampler: Sampler,
    subjects: Sequence[Subject],
    joints: np.ndarray,
    projector: Projector,
    limbs: Sequence[Limb],
    parts: Sequence[str],
) -> PoseSequence:
    """The pose of joints [1, K, 3] in world space, as an export would draw it."""
    pose = at_once(projector.strokes(joints, sampler.counts, limbs, parts))
    unseen = unseen_of(subjects, sampler.counts, projector, joints)
    return pose.without(unseen) if unseen.any() else pose
