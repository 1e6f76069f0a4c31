"""The list of takes that is kept in the .blend, with each scene that was filmed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from ..connection.goodbyes import Goodbyes
from ..connection.jobs import ENDED
from ..path_options import RELATIVE
from ..shared.sentences import Sentence, put_together, take_apart
from ..takes import unfinished as record
from ..takes.take import RECORD, Take, TakeError, read_take
from ..takes.unfinished import Unfinished
from ..texts import say
from ..times import frames_in
from . import compare, strips


class PoseAnythingTake(bpy.types.PropertyGroup):
    """A take: `name` is its own, `take_id` that of its strips, `state` as of a job when it was last heard
    of, `sentence` what was said of it then, in English, and `sentence_parts` what that was made of (JSON),
    `unfinished` what is needed to complete it while a server makes it."""

    take_id: StringProperty()
    folder: StringProperty(name="Folder", subtype="DIR_PATH", options=RELATIVE)
    engine_label: StringProperty(name="Engine")
    seed: StringProperty(name="Seed")
    neural: BoolProperty()
    frames: IntProperty(name="Frames")
    num_frames: IntProperty()
    made: StringProperty(name="Made")
    state: StringProperty()
    sentence: StringProperty()
    sentence_parts: StringProperty()
    unfinished: StringProperty()
    rating: IntProperty(
        name="Rating", description="How good the take is, from 1 to 5; 0 is not rated", min=0, max=5
    )


def _wipe(self: PoseAnythingTakeList, context) -> None:
    item, other = active_item(context), self.items.get(self.other)
    found = strips.find_strip(item.take_id) if item is not None else None
    if found is not None and other is not None:
        try:
            compare.wipe(found[0], item.take_id, other.take_id, self.wipe)
        except TakeError:
            pass  # the panel says which strip is missing


class PoseAnythingTakeList(bpy.types.PropertyGroup):
    items: CollectionProperty(type=PoseAnythingTake)
    index: IntProperty(name="Take", description="The take that the buttons are for")
    other: StringProperty(name="Compare With", description="The take that the chosen one is compared with")
    wipe: FloatProperty(
        name="Wipe",
        description="How much of the picture's width, from the left, shows the chosen take; the rest shows "
        "the other one",
        default=1.0,
        min=0.0,
        max=1.0,
        subtype="FACTOR",
        update=_wipe,
    )


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


def chosen_item(context, take_id: str) -> PoseAnythingTake | None:
    """A take by its id; "" is the one that is chosen in the list."""
    return find_item(take_id) if take_id else active_item(context)


def find_item(take_id: str) -> PoseAnythingTake | None:
    """A take of any scene by its id."""
    for scene in bpy.data.scenes:
        for item in scene.poseanything_takes.items:
            if item.take_id == take_id:
                return item
    return None


def find_folder(folder: Path) -> PoseAnythingTake | None:
    """A take of any scene by its folder."""
    for scene in bpy.data.scenes:
        for item in scene.poseanything_takes.items:
            if item.folder and folder_of(item) == folder:
                return item
    return None


def enter(
    scene: bpy.types.Scene,
    take_id: str,
    take: Take,
    frames: int,
    state: str = "",
    sentence: str = "",
    unfinished: str = "",
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
    item.sentence_parts = json.dumps(take_apart(sentence)) if isinstance(sentence, Sentence) else ""
    item.unfinished = unfinished


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
            shown = frames_in(len(strip.elements), take.times.pace * strips.rate_in(scene, take))
            enter(filmed, strip[strips.TAKE_ID], take, min(shown, take.num_frames))


def sentence_of(item: PoseAnythingTake) -> str:
    """What was last said of a take."""
    try:
        parts = json.loads(item.sentence_parts or "null")
    except (ValueError, RecursionError):
        return item.sentence
    return put_together(parts, item.sentence)


def folder_of(item: PoseAnythingTake) -> Path:
    """Where a take's frames are."""
    return Path(os.path.normpath(bpy.path.abspath(item.folder)))


def left_of(item: PoseAnythingTake) -> Unfinished | None:
    """What the file says is to come yet of a take, None where that is nothing. What its folder says holds
    before it, and that it was cancelled or deleted: the file need not have been saved since."""
    if not item.unfinished:
        return None
    if (folder_of(item) / RECORD).is_file():
        left = record.look(folder_of(item))
    else:
        try:
            left = Unfinished.parse(item.unfinished)
        except TakeError:
            return None
    return None if left is None or left.job in Goodbyes(left.account) else left


def take_of(item: PoseAnythingTake) -> Take:
    """A listed take as its folder says. Raises `TakeError`."""
    return read_take(folder_of(item))


def unused(context) -> list[PoseAnythingTake]:
    """The takes of the list that no strip of the file shows, that have no rating and that are not being
    made."""
    shown = {strip.get(strips.TAKE_ID) for scene in bpy.data.scenes for strip in strips.all_strips(scene)}
    return [
        item
        for item in list_of(context).items
        if item.take_id not in shown and not item.rating and item.state in ("", *ENDED)
    ]


def leave(take_id: str) -> None:
    """Take a take off the list that has it."""
    for scene in bpy.data.scenes:
        kept = scene.poseanything_takes
        for index, item in enumerate(kept.items):
            if item.take_id == take_id:
                kept.items.remove(index)
                kept.index = min(kept.index, len(kept.items) - 1)
                return


def relink(item: PoseAnythingTake, folder: Path) -> int:
    """A take's folder was moved to `folder` or into it: list and strips follow, and with them every other
    take that is missing and lies beside it. Gives how many were found. Raises `TakeError` when another take,
    or none, is there."""
    if not (folder / RECORD).is_file() and (folder / folder_of(item).name).is_dir():
        folder /= folder_of(item).name
    take = read_take(folder)
    if take.name != item.name:
        raise TakeError(
            say(
                "{folder} holds {other}; choose the folder of {take}.",
                folder=folder,
                other=take.name,
                take=item.name,
            )
        )
    _follow(item, folder)
    found = 1
    for other in [other for scene in bpy.data.scenes for other in scene.poseanything_takes.items]:
        beside = folder.parent / folder_of(other).name
        if (
            not folder_of(other).is_dir()
            and (beside / RECORD).is_file()
            and read_take(beside).name == other.name
        ):
            _follow(other, beside)
            found += 1
    return found


def _follow(item: PoseAnythingTake, folder: Path) -> None:
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
