"""Every operator of the extension, also those that are still to come, in the circumstances that break
add-ons: undone and redone, beside another scene, with a linked rig that is overridden, in hidden collections,
and saved and opened again in the middle of a clip."""

from __future__ import annotations

import shutil

import bpy
import pytest

from tests.addon.rigs import grey_picture
from tests.addon.scenes import newest_job, poll_until, session, settle, strip_of
from tests.addon.servers import module, overridden
from tests.addon.test_choosing_takes import trash  # noqa: F401

LEFT_OUT = {"open_take", "example_shot"}
"""The first opens another program; the second takes many seconds, and has tests of its own."""
OF_A_TAKE = {"add_take", "clean_up_takes", "delete_take", "place_take", "relink_take", "show_take"}
"""They are for the takes of the whole file, whichever scene is shown."""


def operators() -> list[type]:
    """All that are registered, by their names."""
    package = module("operators").__name__.rpartition(".")[0]
    found = [one for one in bpy.types.Operator.__subclasses__() if one.__module__.startswith(package)]
    assert len(found) > 40
    return sorted((one for one in found if name_of(one) not in LEFT_OUT), key=name_of)


def name_of(operator: type) -> str:
    return operator.bl_idname.partition(".")[2]


def values(group) -> dict:
    """Whatever a group of properties holds."""
    held = {}
    for prop in group.bl_rna.properties:
        name = prop.identifier
        if name == "rna_type" or prop.is_readonly and prop.type not in ("COLLECTION", "POINTER"):
            continue
        value = getattr(group, name)
        if prop.type == "COLLECTION":
            held[name] = [values(item) for item in value]
        elif prop.type == "POINTER":
            held[name] = value.name if isinstance(value, bpy.types.ID) else value and values(value)
        else:
            held[name] = tuple(value) if getattr(prop, "is_array", False) else value
    return held


def state() -> dict:
    """What of the file an operator may change."""
    strips, animation = module("sequencer.strips"), module("rig.animation")
    groups = [name for name in dir(bpy.types.Scene) if name.startswith("poseanything")]
    return {
        "scenes": {
            scene.name: {
                **{name: values(getattr(scene, name)) for name in groups},
                "camera": scene.camera and scene.camera.name,
                "frame": scene.frame_current,
                "view": scene.view_settings.view_transform,
                "strips": sorted(
                    (strip.name, strip.channel, *strips.span(strip), strip.mute, strip.blend_type)
                    for strip in strips.all_strips(scene)
                ),
            }
            for scene in bpy.data.scenes
        },
        "objects": {
            obj.name_full: [
                *(value for row in obj.matrix_basis for value in row),
                obj.hide_get() if obj.name in bpy.context.view_layer.objects else None,
                [
                    (curve.data_path, curve.array_index, len(curve.modifiers))
                    + tuple(tuple(key.co) for key in curve.keyframe_points)
                    for block in (obj, obj.data)
                    for curve in animation.all_curves(block)
                    if hasattr(curve, "keyframe_points")
                ],
            ]
            for obj in bpy.data.objects
        },
        "limbs": {
            data.name_full: [values(data.poseanything), *(bone.poseanything.limb for bone in data.bones)]
            for data in bpy.data.armatures
        },
        "lenses": {data.name: (data.lens, data.ortho_scale, data.clip_end) for data in bpy.data.cameras},
        "texts": {text.name: text.as_string() for text in bpy.data.texts},
    }


def difference(wanted, found):
    if isinstance(wanted, dict) and isinstance(found, dict):
        return {k: difference(wanted[k], found.get(k)) for k in wanted if wanted[k] != found.get(k)}
    return wanted, found


def undo(step: str) -> None:
    [window] = bpy.context.window_manager.windows
    with overridden(window=window):
        getattr(bpy.ops.ed, step)()


class Sweep:
    """Calls operators one after the other, each with the shot as it was before."""

    def __init__(self, take, take_id):
        self.take_id, self.take, self.kept = take_id, take, take.folder.parent.parent / "kept"
        shutil.copytree(take.folder, self.kept)
        self.ran, self.refused, self.wrong = set(), set(), []

    def arguments(self, name: str, operator: type) -> dict:
        given = {
            "add_take": {"directory": str(self.take.folder)},
            "relink_take": {"directory": str(self.take.folder), "take_id": self.take_id},
            "generate_range": {"frame_start": 7, "frame_end": 9},
            "retake_range": {"frame_start": 7, "frame_end": 9},
            "set_limb": {"limb": "DRAW"},
            "use_range": {"start": 3, "end": 4},
            "draw_digits": {"armature": "Rig"},
            "override_armature": {"armature": "Rig"},
            "add_preset": {"name": "Sweep"},
        }.get(name, {})
        waits = "wait" in operator.bl_rna.properties or "wait" in getattr(operator, "__annotations__", {})
        waits = waits or any("wait" in vars(base).get("__annotations__", {}) for base in operator.__mro__)
        return {**given, "wait": True} if waits else given

    def call(self, operator: type) -> bool:
        """Whether it could be called. It does its work, or says in a sentence why it does not."""
        name, call = name_of(operator), getattr(bpy.ops.poseanything, name_of(operator))
        if name == "save_first_frame":
            bpy.context.scene.poseanything.first_frame_source = "RENDER"
        if not call.poll():
            self.refused.add(name)
            return False
        try:
            call(**self.arguments(name, operator))
        except RuntimeError as error:
            if "Traceback" in str(error):
                self.wrong.append(f"{name} fails: {error}")
            elif not str(error).strip().endswith((".", "Error")):
                self.wrong.append(f"{name} says no sentence: {error}")
        self.ran.add(name)
        return True

    def tidy(self) -> None:
        """What undo does not bring back."""
        live = module("live.view").get()
        if live.on:
            live.end()
        if not self.take.folder.is_dir():
            shutil.copytree(self.kept, self.take.folder)

    def undone(self, operator: type) -> None:
        """The operator, undone and redone: the file is as it was, then as the operator had left it."""
        bpy.ops.ed.undo_push(message="before")
        before = state()
        if not self.call(operator):
            return
        after = state()
        changed = sorted(key for key in before if before[key] != after[key])
        generating = any(base.__name__ == "GeneratingOperator" for base in operator.__mro__)
        if changed and not generating and "UNDO" not in operator.bl_options:
            self.wrong.append(f"{name_of(operator)} changes {changed} but is no step of undo")
        bpy.ops.ed.undo_push(message="after")
        for step, wanted in (("undo", before), ("redo", after), ("undo", before)):
            undo(step)
            if (found := state()) != wanted:
                what = [key for key in wanted if wanted[key] != found[key]]
                self.wrong.append(f"{name_of(operator)}: {step} leaves {what} otherwise")
            session().poll()
        forget_jobs()
        self.tidy()


@pytest.fixture
def taken(shot, served, trash):  # noqa: F811
    """A shot with two takes in its list, its rig's bones selected; gives its sweep."""
    served()
    settings = shot.poseanything
    settings.first_frame_source, settings.first_frame_path = "PICTURE", grey_picture()
    settings.use_custom_range, settings.frame_start, settings.frame_end = True, 5, 9
    shot.poseanything_control.file_format = "PNG"
    assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
    job = newest_job()
    settle(job)
    forget_jobs()
    other = shutil.copytree(job.take.folder, job.take.folder.with_name("other"))
    bpy.ops.poseanything.add_take(directory=str(other))
    kept = shot.poseanything_takes
    kept.items[1].name, kept.other, kept.index = "other", "other", 0
    kept.items.add().name = "unused"
    bpy.ops.object.mode_set(mode="POSE")
    bpy.ops.pose.select_all(action="SELECT")
    return Sweep(job.take, job.id)


def forget_jobs() -> None:
    session().bridge.jobs.clear()
    session().arrival.forget({})


def test_every_operator_is_undone_and_redone(taken):
    for operator in operators():
        taken.undone(operator)
    assert not taken.wrong, "\n".join(taken.wrong)
    assert len(taken.refused) < len(taken.ran) / 4, f"let the shot have what these need: {taken.refused}"


def link_overridden(shot, folder):
    """The rig comes from another file and is overridden here."""
    bpy.ops.object.mode_set(mode="OBJECT")
    rig = bpy.data.objects["Rig"]
    path = str(folder / "library.blend")
    bpy.data.libraries.write(path, {rig, bpy.data.objects["Rig body"]})
    for name in ("Rig", "Rig body"):
        bpy.data.objects.remove(bpy.data.objects[name])
    with bpy.data.libraries.load(path, link=True) as (_, into):
        into.objects = ["Rig"]
    [linked] = into.objects
    shot.collection.objects.link(linked)
    rig = linked.override_create(remap_local_usages=True)
    bpy.context.view_layer.objects.active = rig
    rig.select_set(True)
    bpy.ops.object.mode_set(mode="POSE")
    bpy.ops.pose.select_all(action="SELECT")


def hide_everything(shot, folder):
    """What is filmed lies in a collection that is hidden, inside one that is excluded."""
    outer, inner = bpy.data.collections.new("Outer"), bpy.data.collections.new("Inner")
    shot.collection.children.link(outer)
    outer.children.link(inner)
    for obj in list(shot.collection.objects):
        inner.objects.link(obj)
        shot.collection.objects.unlink(obj)
    layer = bpy.context.view_layer.layer_collection.children["Outer"]
    layer.children["Inner"].hide_viewport = True
    layer.exclude = True


def go_elsewhere(shot, folder):
    """Another scene is shown, without anything in it."""
    [window] = bpy.context.window_manager.windows
    window.scene = bpy.data.scenes.new("Elsewhere")


def delete_what_is_listed(shot, folder):
    """The takes' folders and their strips are gone."""
    shutil.rmtree(folder / "takes")
    strips = module("sequencer.strips")
    for scene in bpy.data.scenes:
        for strip in list(strips.all_strips(scene)):
            strips.strips_of(scene).remove(strip)


def test_what_every_operator_does_to_an_overridden_rig_is_saved(taken, tmp_path):
    """What is set of data that is linked would be gone when the file is opened again."""
    link_overridden(bpy.context.scene, tmp_path)
    bpy.ops.wm.save_mainfile()
    base = bpy.data.filepath
    bpy.ops.wm.open_mainfile(filepath=base)
    before = state()
    for operator in operators():
        if taken.call(operator):
            forget_jobs()
            after = state()
            if after == before:
                continue
            path = str(tmp_path / "after.blend")
            bpy.ops.wm.save_as_mainfile(filepath=path, copy=True)
            bpy.ops.wm.open_mainfile(filepath=path)
            if (found := state()) != after:
                what = [difference(after[key], found[key]) for key in after]
                taken.wrong.append(f"{name_of(operator)}: {what} are lost with the file")
            bpy.ops.wm.open_mainfile(filepath=base)
            taken.tidy()
    assert not taken.wrong, "\n".join(taken.wrong)


@pytest.mark.parametrize(
    "arrange", [hide_everything, go_elsewhere, delete_what_is_listed], ids=lambda f: f.__name__
)
def test_every_operator_works_or_says_why_not(taken, tmp_path, arrange):
    bpy.ops.object.mode_set(mode="OBJECT")
    arrange(bpy.context.scene, tmp_path)
    bpy.ops.ed.undo_push(message="before")
    shot = state()["scenes"]["Scene"]
    for operator in operators():
        if taken.call(operator):
            forget_jobs()
            if arrange is go_elsewhere and name_of(operator) not in OF_A_TAKE:
                found = state()["scenes"]["Scene"]
                if found != shot:
                    taken.wrong.append(f"{name_of(operator)} changes a scene that is not shown")
            bpy.ops.ed.undo_push(message="after")
            undo("undo")
            taken.tidy()
    assert not taken.wrong, "\n".join(taken.wrong)


def test_every_operator_in_the_middle_of_a_clip_that_is_saved_and_opened_again(taken, served):
    served(pace=3.0)
    assert bpy.ops.poseanything.generate() == {"FINISHED"}
    job = newest_job()
    poll_until(lambda: job.frames)
    bpy.ops.wm.save_mainfile()
    ends = {"cancel", "generate", "stop_server"}
    for operator in operators():
        if name_of(operator) not in ends and not any(
            b.__name__ == "GeneratingOperator" for b in operator.__mro__
        ):
            if taken.call(operator):
                session().poll()
                bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
                session().poll()
                taken.tidy()
    assert not taken.wrong, "\n".join(taken.wrong)
    settle(job)
    assert job.state == "DONE" and len(strip_of(job).elements) == 5
