"""The list of takes that is kept in the .blend, with each scene that was filmed."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, CollectionProperty, IntProperty, PointerProperty, StringProperty

from ..takes.take import Take, TakeError, read_take
from . import strips


class PoseAnythingTake(bpy.types.PropertyGroup):
    """A take: `name` is its own, `take_id` that of its strips, `state` as of a job when it was last heard
    of."""

    take_id: StringProperty()
    folder: StringProperty(name="Folder", subtype="DIR_PATH")
    engine_label: StringProperty(name="Engine")
    seed: StringProperty(name="Seed")
    neural: BoolProperty()
    frames: IntProperty(name="Frames")
    num_frames: IntProperty()
    made: StringProperty(name="Made")
    state: StringProperty()
    sentence: StringProperty()
    rating: IntProperty(
        name="Rating", description="How good the take is, from 1 to 5; 0 is not rated", min=0, max=5
    )


class PoseAnythingTakeList(bpy.types.PropertyGroup):
    items: CollectionProperty(type=PoseAnythingTake)
    index: IntProperty(name="Take", description="The take that the buttons are for")


def list_of(context) -> PoseAnythingTakeList:
    """The list of the context's scene; where that has none, as an edit scene has not, the first that is
    there."""
    own = context.scene.poseanything_takes
    if len(own.items):
        return own
    return next((s.poseanything_takes for s in bpy.data.scenes if len(s.poseanything_takes.items)), own)


def active_item(context) -> PoseAnythingTake | None:
    """The take that is chosen in the list."""
    found = list_of(context)
    return found.items[found.index] if 0 <= found.index < len(found.items) else None


def find_item(take_id: str) -> PoseAnythingTake | None:
    """A take of any scene by its id."""
    for scene in bpy.data.scenes:
        for item in scene.poseanything_takes.items:
            if item.take_id == take_id:
                return item
    return None


def enter(
    scene: bpy.types.Scene, take_id: str, take: Take, frames: int, state: str = "", sentence: str = ""
) -> None:
    """Add a take to a scene's list and choose it, or bring what is listed of it up to date."""
    item = find_item(take_id)
    if item is None:
        kept = scene.poseanything_takes
        item = kept.items.add()
        kept.index = len(kept.items) - 1
        item.take_id, item.name = take_id, take.name
        item.folder = strips.relative_folder(take.folder)
        item.engine_label = take.record.get("engine_label", "")
        item.neural = take.record.get("neural", True)
        item.made = take.record.get("made", "")
        seed = take.record.get("seed")
        item.seed = "" if seed is None else str(seed)
    item.frames, item.num_frames, item.state, item.sentence = frames, take.num_frames, state, sentence


def enter_strips() -> None:
    """List the takes whose strips are in the file but that no list has, as in files of earlier releases."""
    known = {item.take_id for scene in bpy.data.scenes for item in scene.poseanything_takes.items}
    for scene in bpy.data.scenes:
        for strip in strips.all_strips(scene) if scene.library is None else ():
            if strips.TAKE_ID not in strip or strip.type != "IMAGE" or strip[strips.TAKE_ID] in known:
                continue
            try:
                take = strips.take_of(strip)
            except TakeError:
                continue
            known.add(strip[strips.TAKE_ID])
            filmed = bpy.data.scenes.get(take.record.get("scene", ""), scene)
            shown = -(-len(strip.elements) // take.frame_step)
            enter(filmed, strip[strips.TAKE_ID], take, min(shown, take.num_frames))


def folder_of(item: PoseAnythingTake) -> Path:
    """Where a take's frames are."""
    return Path(bpy.path.abspath(item.folder))


def take_of(item: PoseAnythingTake) -> Take:
    """A listed take as its folder says. Raises `TakeError`."""
    return read_take(folder_of(item))


def relink(item: PoseAnythingTake, folder: Path) -> None:
    """A take's folder was moved: list and strips follow. Raises `TakeError` when another take, or none, is in
    the folder."""
    take = read_take(folder)
    if take.name != item.name:
        raise TakeError(f"{folder} holds {take.name}; choose the folder of {item.name}.")
    item.folder = strips.relative_folder(folder)
    for scene in bpy.data.scenes:
        for strip in strips.all_strips(scene):
            if strip.get(strips.TAKE_ID) != item.take_id:
                continue
            if strip.type == "IMAGE":
                strip.directory = item.folder
            elif strip.type == "MOVIE":
                strip.filepath = item.folder + bpy.path.basename(strip.filepath)


_CLASSES = (PoseAnythingTake, PoseAnythingTakeList)


def register() -> None:
    for cls in _CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.poseanything_takes = PointerProperty(type=PoseAnythingTakeList)


def unregister() -> None:
    del bpy.types.Scene.poseanything_takes
    for cls in reversed(_CLASSES):
        bpy.utils.unregister_class(cls)
