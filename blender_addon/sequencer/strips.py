"""Strips of takes: found by what they carry, made once, lengthened while frames arrive.

A strip is never held from one moment to the next: undo, loading and the user make new ones of them at any
time. It is known by its custom property instead.
"""

from __future__ import annotations

from pathlib import Path

import bpy

from ..shared.messages import png_size
from ..shared.pose import MAX_SIDE
from ..takes.take import Take, TakeError, from_json, to_json
from ..times import frame_rate

TAKE_ID = "poseanything_job"
"""The custom property by which a strip is known; every strip of one take has the same value."""
TAKE = "poseanything_take"
"""The custom property that says what a strip was made with."""
UNREAD = ".unread"
"""Ends the name under which a new strip gets its first frame: of one that is there, Blender reads the whole
picture, for longer than all else that a tick of the timer does."""
MAX_CHANNEL = 128
STACK = 4
"""Takes of one shot that lie above each other before the lowest ones leave the sequencer."""
DRAFT_COLOUR = "COLOR_02"
"""Colour tag of strips that no neural engine made."""


def sequencer_scene(context) -> bpy.types.Scene:
    """The scene whose sequencer the user sees: from Blender 5.0 on the workspace may show another one's."""
    return getattr(context, "sequencer_scene", None) or context.scene


def strips_of(scene: bpy.types.Scene):
    """The top-level strips of a scene, whose sequencer is made when it has none."""
    editor = scene.sequence_editor_create()
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def all_strips(scene: bpy.types.Scene):
    """Every strip of a scene, those inside meta strips included."""
    editor = scene.sequence_editor
    if editor is None:
        return ()
    return editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all


def find_strip(take_id: str, kind: str = "IMAGE") -> tuple[bpy.types.Scene, bpy.types.Strip] | None:
    """The strip of a take, in whatever scene it is now."""
    for scene in bpy.data.scenes:
        for strip in all_strips(scene):
            if strip.type == kind and strip.get(TAKE_ID) == take_id:
                return scene, strip
    return None


def active_take_strip(scene: bpy.types.Scene) -> bpy.types.Strip | None:
    """The active strip of a scene's sequencer, if it is a take's."""
    editor = scene.sequence_editor
    strip = editor.active_strip if editor is not None else None
    return strip if strip is not None and TAKE_ID in strip else None


def take_of(strip: bpy.types.Strip) -> Take:
    """What a strip was made with. Raises `TakeError`."""
    text = strip.get(TAKE)
    if not isinstance(text, str):
        raise TakeError("This strip was not generated; select one that was.")
    return from_json(text, folder_of(strip))


def folder_of(strip: bpy.types.Strip) -> Path:
    """The folder that a take's strip shows files of."""
    if strip.type == "MOVIE":
        return Path(bpy.path.abspath(strip.filepath)).parent
    return Path(bpy.path.abspath(strip.directory))


def show_frames(
    scene: bpy.types.Scene, take_id: str, take: Take, num_frames: int, start: int | None = None
) -> bool:
    """Make a take's strip show its first `num_frames` frames, making it in `scene` when there is
    none yet, at `start` or where the take was filmed.

    Returns whether a strip was made."""
    found = find_strip(take_id)
    if found is None:
        retire(scene, take)
        add_strip(scene, take_id, take, num_frames, place_of(scene, take) if start is None else start)
        return True
    scene, strip = found
    _grow(scene, strip, take.element_names(num_frames, rate_in(scene, take)))
    return False


def add_strip(scene: bpy.types.Scene, take_id: str, take: Take, num_frames: int, start: int) -> None:
    """Add one more strip of a take's first `num_frames` frames, from `start` on and above what lies there."""
    strips, rate = strips_of(scene), rate_in(scene, take)
    names = take.element_names(num_frames, rate)
    strip = strips.new_image(
        name=_title(take),
        filepath=str(take.folder / f"{names[0]}{UNREAD}"),
        channel=free_channel(strips, start, take.length(rate)),
        frame_start=start,
        fit_method="ORIGINAL",
    )
    strip.elements[0].filename = names[0]
    strip.directory = relative_folder(take.folder)
    _label(strip, take_id, take)
    _fit(scene, strip, *_size_of(take.folder / names[0]))
    _read_as_srgb(strip)
    if fade := take.record.get("fade", 0):
        _fade_out(strip, start + take.length(rate), fade)
    make_active(scene, strip)
    _grow(scene, strip, names)


def _grow(scene: bpy.types.Scene, strip: bpy.types.Strip, names: list[str]) -> None:
    """Lengthen a strip until it shows files."""
    growth = len(names) - len(strip.elements)
    if growth > 0:
        _make_room(scene, strip, growth)
        for name in names[len(strip.elements) :]:  # their sizes are for `heal`
            strip.elements.append(name)


def rate_in(scene: bpy.types.Scene, take: Take) -> float:
    """The frame rate of a scene's sequencer over that of the scene where a take was filmed."""
    clip = take.record.get("fps")
    if not isinstance(clip, (int, float)) or clip <= 0:
        return 1.0
    rate = frame_rate(scene) / (clip * take.times.pace)
    return 1.0 if abs(rate - 1) < 1e-3 else rate


def place_of(scene: bpy.types.Scene, take: Take) -> int:
    """Where in a scene's sequencer the time is at which a take is shown."""
    return take.times.span_in(rate_in(scene, take))[0]


def retire(scene: bpy.types.Scene, take: Take) -> None:
    """Take the lowest strips of a shot out of a sequencer, so that `STACK` takes lie above each other at most
    once another has come.

    Only strips go that are as they were made, and nothing else: the list keeps their takes, whose Show brings
    them back.
    """
    shot = (take.record.get("scene"), take.times.start, take.times.duration)
    untouched: dict[str, list] = {}
    used = {
        source
        for strip in all_strips(scene)
        for source in (getattr(strip, "input_1", None), getattr(strip, "input_2", None))
    }
    for strip in strips_of(scene):
        if TAKE_ID not in strip or strip.lock or strip in used or len(strip.modifiers):
            continue
        try:
            other = take_of(strip)
        except TakeError:
            continue
        filmed = (other.record.get("scene"), other.times.start, other.times.duration)
        start = place_of(scene, other)
        if filmed == shot and span(strip) == (start, start + other.length(rate_in(scene, other))):
            untouched.setdefault(strip[TAKE_ID], []).append(strip)
    lowest_first = sorted(untouched.values(), key=lambda found: max(strip.channel for strip in found))
    many = max(0, len(lowest_first) - STACK + 1)
    channels = sorted(strip.channel for found in lowest_first for strip in found)
    for found in lowest_first[:many]:
        for strip in found:
            strips_of(scene).remove(strip)
    if many:  # the others move down to where they were
        kept = sorted((strip for found in lowest_first[many:] for strip in found), key=lambda s: s.channel)
        for channel, strip in zip(channels, kept):
            strip.channel = channel


def remove(take_id: str) -> None:
    """Take every strip of a take out of every sequencer."""
    for scene in bpy.data.scenes:
        for strip in [strip for strip in all_strips(scene) if strip.get(TAKE_ID) == take_id]:
            holder = strip.parent_meta() or scene.sequence_editor
            (holder.strips if hasattr(holder, "strips") else holder.sequences).remove(strip)


def make_active(scene: bpy.types.Scene, strip: bpy.types.Strip) -> None:
    """Select a strip alone and make it the active one, as adding a strip by hand does."""
    for other in all_strips(scene):
        other.select = False
    strip.select = True
    scene.sequence_editor.active_strip = strip


def set_elements(scene: bpy.types.Scene, strip: bpy.types.Strip, names: list[str]) -> None:
    """Give an image strip its files; it keeps its place and its length.

    `strip.elements.append()` leaves whatever memory held in the size of a new element, and Blender ends when
    it wants to show that such a file is missing. The operator writes sizes of zero; it must not run beside a
    thread that is busy.
    """
    editor, folder = scene.sequence_editor, strip.directory
    active = editor.active_strip
    editor.active_strip = strip
    shown = (
        {"scene": scene, "sequencer_scene": scene}
        if hasattr(bpy.context, "sequencer_scene")
        else {"scene": scene}
    )
    try:
        with bpy.context.temp_override(**shown):
            bpy.ops.sequencer.change_path(
                directory=bpy.path.abspath(folder),
                files=[{"name": name} for name in names],
                relative_path=False,
            )
    finally:
        strip.directory, editor.active_strip = folder, active


def heal() -> None:
    """Set right the sizes that `elements.append()` left in the strips of takes; no thread may be busy."""
    for scene in bpy.data.scenes:
        for strip in all_strips(scene):
            if strip.type == "IMAGE" and TAKE_ID in strip and scene.library is None and _has_odd_sizes(strip):
                set_elements(scene, strip, [element.filename for element in strip.elements])


def _has_odd_sizes(strip: bpy.types.Strip) -> bool:
    """Whether the sizes of a strip's frames can't be true: unknown ones are zero, others the first's."""
    first = strip.elements[0]
    true = (first.orig_width, first.orig_height)
    if true == (0, 0):
        true = _size_of(Path(bpy.path.abspath(strip.directory), first.filename))
    sizes = {(element.orig_width, element.orig_height) for element in strip.elements} - {(0, 0)}
    return bool(sizes - {true}) or any(min(size) <= 0 or max(size) > MAX_SIDE for size in sizes)


def add_movie(scene: bpy.types.Scene, take_id: str, take: Take, path: Path) -> None:
    """Lay an encoded take above its image strip and mute that one."""
    image = find_strip(take_id)
    if image is not None:
        scene, image_strip = image
        start = _start(image_strip)
        image_strip.mute = True
    else:
        start = place_of(scene, take)
    strips = strips_of(scene)
    channel = free_channel(strips, start, take.length(rate_in(scene, take)))
    strip = strips.new_movie(
        name=f"{_title(take)}.mp4", filepath=str(path), channel=channel, frame_start=start, fit_method="FIT"
    )
    strip.filepath = relative_folder(path.parent) + path.name
    _label(strip, take_id, take)
    _fit(scene, strip, strip.elements[0].orig_width, strip.elements[0].orig_height)


def free_channel(strips, start: int, length: int) -> int:
    """The lowest channel above everything that lies in a stretch of time, so that what is put there is
    seen; when there is none above, the lowest one that is free."""
    taken = {strip.channel for strip in strips if _start(strip) < start + length and _end(strip) > start}
    above = max(taken, default=0) + 1
    if above <= MAX_CHANNEL:
        return above
    free = set(range(1, MAX_CHANNEL + 1)) - taken
    if not free:
        raise TakeError("Every channel of the sequencer is taken here; free one and add the take again.")
    return min(free)


def relative_folder(folder: Path) -> str:
    """A folder as Blender writes it: relative to the file when there is one, with a separator at its end."""
    path = str(folder)
    if bpy.data.is_saved:
        try:
            path = bpy.path.relpath(path)
        except ValueError:
            pass  # on another drive there is no relative path
    return path.rstrip("/\\") + "/"


def _label(strip: bpy.types.Strip, take_id: str, take: Take) -> None:
    strip[TAKE_ID] = take_id
    strip[TAKE] = to_json(take)
    if _is_draft(take):
        strip.color_tag = DRAFT_COLOUR


def _title(take: Take) -> str:
    """A strip's name, which says of a draft that it is one."""
    return f"{take.name} (draft)" if _is_draft(take) else take.name


def _is_draft(take: Take) -> bool:
    return not take.record.get("neural", True)


def _fade_out(strip: bpy.types.Strip, end: int, length: int) -> None:
    """Let a strip give way to what lies below it over its last `length` scene frames."""
    strip.blend_type = "ALPHA_OVER"
    for frame, opacity in ((end - length - 1, 1.0), (end - 1, 1 / (length + 1))):
        strip.blend_alpha = opacity
        strip.keyframe_insert("blend_alpha", frame=frame)


def _read_as_srgb(strip: bpy.types.Strip) -> None:
    try:
        strip.colorspace_settings.name = "sRGB"
    except TypeError:
        pass  # a studio's colour configuration without that name; its default for 8-bit pictures stands


def _size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a frame, zero where there is none."""
    try:
        with open(picture, "rb") as file:
            return png_size(file.read(24)) or (0, 0)
    except OSError:
        return 0, 0


def _fit(scene: bpy.types.Scene, strip: bpy.types.Strip, width: int, height: int) -> None:
    """Let a clip fill the scene's picture. It has square pixels: in a scene without, fit what it shows, not
    its numbers."""
    if not (width and height):
        return
    render = scene.render
    aspect = render.pixel_aspect_x / render.pixel_aspect_y
    scale = min(render.resolution_x * aspect / width, render.resolution_y / height)
    strip.transform.scale_x, strip.transform.scale_y = scale / aspect, scale


def _make_room(scene: bpy.types.Scene, strip: bpy.types.Strip, growth: int) -> None:
    """Move to a free channel when another strip came to lie where this one is about to grow."""
    strips = strips_of(scene)
    start, end = _start(strip), _end(strip) + growth
    others = [other for other in strips if other != strip]
    if any(
        other.channel == strip.channel and _start(other) < end and _end(other) > start for other in others
    ):
        strip.channel = free_channel(others, start, end - start)


def span(strip: bpy.types.Strip) -> tuple[int, int]:
    """The first scene frame that shows a strip, and the first after it."""
    return _start(strip), _end(strip)


def content_start(strip: bpy.types.Strip) -> int:
    """Where a strip's first picture lies, whether it is shown or cut off."""
    return round(strip.content_start if hasattr(strip, "content_start") else strip.frame_start)


def _start(strip: bpy.types.Strip) -> int:
    return strip.left_handle if hasattr(strip, "left_handle") else strip.frame_final_start


def _end(strip: bpy.types.Strip) -> int:
    return strip.right_handle if hasattr(strip, "right_handle") else strip.frame_final_end
