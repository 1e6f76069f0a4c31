"""What the user sets for a scene: one group, `scene.poseanything`, saved with the file and kept with every
take."""

from __future__ import annotations

from types import SimpleNamespace

import bpy
from bpy.props import (
    BoolProperty,
    EnumProperty,
    FloatProperty,
    FloatVectorProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from . import session
from .path_options import RELATIVE
from .texts import say
from .texts.translation import shown, tell

BEST_ENGINE = (
    "AUTO",
    say("Best Available"),
    say("The neural engine where the server has it ready, else the draft animatic"),
    "NONE",
)
_MOVES = {
    "pan_left": "The background goes to the right",
    "pan_right": "The background goes to the left",
    "tilt_up": "The background goes down",
    "tilt_down": "The background goes up",
    "zoom_in": "The background grows",
    "zoom_out": "The background shrinks",
    "roll_clockwise": "The background turns counterclockwise",
    "roll_counterclockwise": "The background turns clockwise",
}

# Blender keeps only a pointer to the strings of a dynamic enumeration: hold on to them here.
_items: dict[str, list] = {}


def _engine_items(self, context):
    names = [BEST_ENGINE]
    for engine in session.get().engines:
        about = engine.summary if engine.ready else engine.reason
        names.append((engine.name, engine.short_label, shown(about), "NONE" if engine.ready else "ERROR"))
    if self.engine_name and all(name != self.engine_name for name, *_ in names):
        about = tell("The server that is connected does not have it")
        names.append((self.engine_name, self.engine_name, about, "ERROR"))
    return _keep("engine", names)


def _keep(key, names):
    items = [(name, label, text, icon, number) for number, (name, label, text, icon) in enumerate(names)]
    if _items.get(key) != items:
        _items[key] = items
    return _items[key]


def _stored_choice(key, attribute, items, unset=""):
    """Getter and setter of an enumeration whose choice is stored as text, so that it outlives changes of
    its items."""

    def get(self):
        value = getattr(self, attribute) or unset
        return next((number for name, *_, number in items(self, None) if name == value), 0)

    def set(self, number):
        name = next(name for name, *_, n in items(self, None) if n == number)
        setattr(self, attribute, "" if name == unset else name)

    return {"items": items, "get": get, "set": set}


class PoseAnythingSettings(bpy.types.PropertyGroup):
    # Rig

    pose_source: EnumProperty(
        name="Poses From",
        description="What the subject's motion is taken from",
        items=(
            ("RIG", "Rig", "The scene's armatures"),
            ("VIDEO", "Video", "A filmed subject, which the Video panel finds in a strip of the sequencer"),
        ),
    )
    subjects: EnumProperty(
        name="Subjects",
        description="Which armatures are sent as skeletons",
        items=(
            (
                "SELECTED",
                "Selected",
                "Selected armatures and those that deform selected meshes; the scene's only one if none is",
            ),
            ("VISIBLE", "Visible", "Every armature that is visible in the viewport"),
            ("COLLECTION", "Collection", "Every armature in a collection"),
        ),
    )
    collection: PointerProperty(
        name="Collection", description="The armatures in it are sent as skeletons", type=bpy.types.Collection
    )
    pose_look: EnumProperty(
        name="Look",
        description="How the poses are drawn",
        items=(
            ("AUTO", "Automatic", "As the engine was trained to see them"),
            ("BONES", "Bones", "Each limb as its bones lie"),
            (
                "TRAINED",
                "As Trained",
                "As the released weights know them: people as OpenPose's points, with hands where these are "
                "large enough to be seen; all others as bones, or through the middle of the flesh where "
                "bones run beside it",
            ),
        ),
    )
    show_limbs: BoolProperty(
        name="Show Limbs",
        description="Draw the limbs over the 3D view as they will be sent",
    )

    # Shot

    use_custom_range: BoolProperty(
        name="Custom Range",
        description="Generate a range of its own instead of the scene's (or its preview range, when that "
        "is on)",
    )
    frame_start: IntProperty(
        name="Start", description="First scene frame of the clip", default=1, min=-1048574, max=1048574
    )
    frame_end: IntProperty(
        name="End", description="Last scene frame of the clip", default=81, min=-1048574, max=1048574
    )
    pacing: EnumProperty(
        name="Frames",
        description="Which moments of the range become frames of the clip",
        items=(
            ("STEP", "Every n-th", "Frames of the scene, by their number"),
            ("RATE", "Frame Rate", "As many a second as you say, also between the scene's frames"),
        ),
    )
    clip_rate: FloatProperty(
        name="Frame Rate",
        description="The clip's own frames a second, whatever the scene's are",
        default=24.0,
        min=1.0,
        max=240.0,
        precision=2,
    )
    speed: FloatProperty(
        name="Speed",
        description="How fast the motion is shown. Below 1 it is slow motion, filmed also between the "
        "scene's frames, and the clip lasts longer than the range",
        default=1.0,
        min=0.05,
        max=20.0,
        soft_min=0.1,
        soft_max=4.0,
        precision=2,
    )
    frame_step: IntProperty(
        name="Step",
        description="Generate every n-th scene frame; each is shown n frames long, so the clip lasts as "
        "long as the range",
        default=1,
        min=1,
        max=100,
    )
    long_side: IntProperty(
        name="Long Side",
        description="Longer side of the generated frames; the shorter one follows from the scene's aspect",
        default=832,
        min=128,
        max=2048,
        step=32,
        subtype="PIXEL",
    )
    view: EnumProperty(
        name="View",
        description="Where the clip is seen from",
        items=(
            ("CAMERA", "Camera", "The scene's camera, with its animation"),
            ("VIEWPORT", "Viewport", "The 3D view as it is when Generate is pressed"),
        ),
    )
    first_frame_source: EnumProperty(
        name="First Frame",
        description="The picture that the clip begins with and takes its looks from",
        items=(
            (
                "RENDER",
                "Render",
                "Render the clip's first frame with the scene's render engine; Blender stays usable "
                "meanwhile",
            ),
            ("VIEWPORT", "Viewport", "The 3D view's own shading, drawn at once"),
            (
                "LAST_RENDER",
                "Last Render",
                "The last F12 render, if it shows the clip's first frame through the same camera",
            ),
            (
                "PICTURE",
                "Picture",
                "Use a picture; it is scaled to cover the clip and cropped around its center",
            ),
            ("VIDEO", "Video", "What the video that the poses come from shows there"),
        ),
    )
    first_frame_path: StringProperty(
        name="Picture",
        description="The picture that the clip begins with; its subject should stand in the first frame's "
        "pose",
        subtype="FILE_PATH",
        options=RELATIVE,
    )
    picture_scale: FloatProperty(
        name="Scale",
        description="How large the picture is, beside covering the clip; drag the handles in the camera view "
        "to lay it under the limbs",
        default=1.0,
        min=0.05,
        max=20.0,
        soft_min=0.5,
        soft_max=2.0,
    )
    picture_x: FloatProperty(
        name="Move X",
        description="How far the picture is moved to the right, in widths of the clip",
        soft_min=-0.5,
        soft_max=0.5,
        min=-5.0,
        max=5.0,
        precision=3,
    )
    picture_y: FloatProperty(
        name="Move Y",
        description="How far the picture is moved up, in heights of the clip",
        soft_min=-0.5,
        soft_max=0.5,
        min=-5.0,
        max=5.0,
        precision=3,
    )
    pose_density: EnumProperty(
        name="Poses",
        description="Which frames carry a pose; the others are left to the engine",
        items=(
            ("ALL", "Every Frame", "The subject follows the animation exactly"),
            ("NTH", "Every n-th Frame", "Poses at regular distances, free movement between them"),
            ("KEYS", "Keyframes", "Poses where the armature's action is keyed, free movement between them"),
            ("MARKERS", "Markers", "Poses where the scene has markers, free movement between them"),
            ("HAND", "By Hand", "Poses at frames that you choose in a time line, free movement between them"),
        ),
    )
    key_poses: StringProperty(
        name="Key Poses", description="Scene frames that carry a pose, with spaces between them"
    )
    pose_interval: IntProperty(
        name="Distance", description="Clip frames from one pose to the next", default=8, min=2, max=100
    )

    camera_source: EnumProperty(
        name="Background",
        description="How the background moves. The subject is drawn where the scene's camera sees it",
        items=(
            ("SCENE", "Scene Camera", "As the scene's camera sees it"),
            (
                "MOVE",
                "Background Only",
                "By a move of the background alone, on top of what the scene's camera does; the paper's own "
                "control",
            ),
        ),
    )
    camera_move: EnumProperty(
        name="Move",
        description="How the background moves over the clip, starting and stopping gently; the subject does "
        "not move with it",
        items=tuple((name.upper(), name.replace("_", " ").title(), text) for name, text in _MOVES.items()),
    )
    camera_amount: FloatProperty(
        name="Amount",
        description="How far: pans and tilts in picture widths and heights, zooms as growth or shrinkage, "
        "rolls in turns",
        default=0.25,
        min=0.0,
        soft_max=1.0,
        max=10.0,
    )

    # Prompt

    prompt: StringProperty(name="Prompt", description="Describe the video")
    negative_prompt: StringProperty(name="Negative Prompt", description="Describe what to avoid")

    # Engine

    engine_name: StringProperty(options={"HIDDEN"})
    engine: EnumProperty(
        name="Engine",
        description="The program that generates the clip",
        **_stored_choice("engine", "engine_name", _engine_items, unset="AUTO"),
    )
    seed: IntProperty(
        name="Seed", description="The same seed and settings give the same clip", min=0, max=2**31 - 1
    )
    new_seed: BoolProperty(name="New Each Time", description="Draw another seed for every take", default=True)
    batch: IntProperty(
        name="Takes",
        description="How many takes are made at once, each with a seed of its own",
        default=1,
        min=1,
        max=16,
    )

    # Output

    output_folder: StringProperty(
        name="Folder",
        description="Where this scene's takes are written, each in a folder of its own; // is the folder "
        "of the .blend file. "
        "Empty uses the folder in the extension's preferences",
        subtype="DIR_PATH",
        options=RELATIVE,
    )
    take_name: StringProperty(
        name="Name", description="Takes are called <name>_001 and so on; empty uses the scene's name"
    )
    strips_go_to: EnumProperty(
        name="Strips",
        description="Which scene's sequencer takes are added to",
        items=(
            (
                "AUTO",
                "Automatic",
                "This scene's sequencer where it has strips already, else an edit scene named Shots",
            ),
            ("EDIT_SCENE", "Edit Scene", "An edit scene named Shots, so that F12 renders this scene"),
            ("SCENE", "This Scene", "This scene's own sequencer. F12 then renders the strips, not the scene"),
        ),
    )
    make_movie: BoolProperty(
        name="Also as Movie",
        description="When all frames are there, encode them as a movie in the background and put it above "
        "the image strip",
    )


_PICKS = (
    ("NONE", "What Moves", "The one thing that moves against the background"),
    ("CLICK", "Click", "What was clicked at"),
    ("BOX", "Box", "What lies in a box"),
)
_PLACE = (
    "Where the subject is, as fractions of width and height, y down: x and y, or left, top, right, bottom"
)


def _pick():
    return EnumProperty(name="Subject", description="How the subject was pointed at", items=_PICKS)


def _picked_place():
    return FloatVectorProperty(name="Place", description=_PLACE, size=4, min=0.0, max=1.0)


def _search():
    return StringProperty(name="Search", description="The server's job that looks for it", options={"HIDDEN"})


class PoseAnythingVideo(bpy.types.PropertyGroup):
    """The video that a scene's poses come from, what was found in it, and how that is laid on the clip; and
    the first frame's subject, where the user pointed at it."""

    strip: StringProperty(name="Strip", description="What the strip is known by", options={"HIDDEN"})
    pick: _pick()
    place: _picked_place()
    skeleton: EnumProperty(
        name="Skeleton",
        description="How the subject's skeleton is had in every frame",
        items=(
            (
                "carried",
                "Carried Along",
                "The first frame's is carried along and fitted: the same limbs in all frames, for drafts",
            ),
            (
                "medial",
                "Found Anew",
                "Each frame's own, as the model was trained with: its limbs are matched, and come and go",
            ),
        ),
    )
    poses: PointerProperty(name="Poses", description="What was found in the video", type=bpy.types.Text)
    search: _search()
    scale: FloatProperty(
        name="Scale",
        description="How large the poses are, beside the video covering the clip; drag the handles in the "
        "camera view to lay them over the first frame's subject",
        default=1.0,
        min=0.05,
        max=20.0,
        soft_min=0.5,
        soft_max=2.0,
    )
    x: FloatProperty(
        name="Move X",
        description="How far the poses are moved to the right, in widths of the clip",
        soft_min=-0.5,
        soft_max=0.5,
        min=-5.0,
        max=5.0,
        precision=3,
    )
    y: FloatProperty(
        name="Move Y",
        description="How far the poses are moved up, in heights of the clip",
        soft_min=-0.5,
        soft_max=0.5,
        min=-5.0,
        max=5.0,
        precision=3,
    )
    picture_pick: _pick()
    picture_place: _picked_place()
    mask: PointerProperty(name="Mask", description="The first frame's subject", type=bpy.types.Text)
    mask_search: _search()


class PoseAnythingShown(bpy.types.PropertyGroup):
    """What is shown over the camera view; it changes nothing that is sent."""

    live_opacity: FloatProperty(
        name="Live Picture",
        description="How opaque the live picture is over the camera view",
        default=0.9,
        min=0.0,
        max=1.0,
        subtype="FACTOR",
    )
    skeleton: EnumProperty(
        name="Skeleton",
        description="Draw the pose of this frame over the camera view, line for line as it will be sent",
        items=(
            ("NONE", "None", "Draw no skeleton"),
            ("OVER", "Over the View", "Draw its lines over what the view shows"),
            ("ALONE", "As the Model Sees It", "White lines on black, in the weight that the model knows"),
        ),
    )
    parts: BoolProperty(
        name="Part Colors", description="Draw each part of the skeleton in a color of its own"
    )
    crop: BoolProperty(
        name="Crop Edges", description="Darken what of the camera's frame will not be in the clip"
    )
    first_frame: BoolProperty(
        name="First Frame",
        description="Draw the picture that the clip begins with behind the limbs; handles lay it under them",
    )
    video_poses: BoolProperty(
        name="Over the Video",
        description="Draw the poses that were found over the video in the sequencer's preview",
        default=True,
    )
    rectangle: BoolProperty(
        name="Show Rectangle",
        description="Draw the rectangle that tells the model of the camera's motion: against the background, "
        "or with it where the engine was trained so",
    )
    onion: BoolProperty(
        name="Onion Skin",
        description="Draw the chosen take's pictures at this frame and beside it over the camera view",
    )
    onion_distance: IntProperty(
        name="Distance",
        description="Scene frames from one picture of the onion skin to the next",
        default=4,
        min=1,
        max=100,
    )
    opacity: FloatProperty(
        name="Opacity",
        description="How opaque first frame and onion skin are",
        default=0.5,
        min=0.0,
        max=1.0,
        subtype="FACTOR",
    )


_NOT_KEPT = {"rna_type", "name", "engine", "show_limbs"}


def record(settings: PoseAnythingSettings) -> dict:
    """The settings as JSON-able values, a collection by its name."""
    values = {}
    for prop in PoseAnythingSettings.bl_rna.properties:
        if prop.identifier not in _NOT_KEPT:
            value = getattr(settings, prop.identifier)
            values[prop.identifier] = value.name if isinstance(value, bpy.types.ID) else value
    return values


def recorded(values: dict) -> SimpleNamespace:
    """A record of settings, to be read as the settings are; what it does not know has its default."""
    known = {}
    for prop in PoseAnythingSettings.bl_rna.properties:
        name = prop.identifier
        if name in ("rna_type", "name", "engine"):
            continue
        if prop.type == "POINTER":
            known[name] = bpy.data.collections.get(values.get(name) or "")
        else:
            known[name] = values.get(name, prop.default)
    return SimpleNamespace(**known)


def changed(settings: PoseAnythingSettings, values: dict) -> list[str]:
    """The names of the settings that are not as in a record."""
    now = record(settings)
    return [
        prop.name or prop.identifier.replace("_", " ").capitalize()
        for prop in settings.bl_rna.properties
        if prop.identifier in now
        and prop.identifier in values
        and now[prop.identifier] != values[prop.identifier]
    ]


def restore(settings: PoseAnythingSettings, values: dict) -> None:
    """Set the settings to a record of them; what this release does not know is passed over."""
    for prop in settings.bl_rna.properties:
        name = prop.identifier
        if name in _NOT_KEPT or name not in values:
            continue
        value = values[name]
        if prop.type == "POINTER":
            value = bpy.data.collections.get(value) if value else None
        try:
            setattr(settings, name, value)
        except TypeError:
            print(f"PoseAnything Bridge: {name} = {value!r} is not known to this release; left as it was.")


_GROUPS = {
    "poseanything": PoseAnythingSettings,
    "poseanything_video": PoseAnythingVideo,
    "poseanything_shown": PoseAnythingShown,
}


def register() -> None:
    for name, group in _GROUPS.items():
        bpy.utils.register_class(group)
        setattr(bpy.types.Scene, name, PointerProperty(type=group))


def unregister() -> None:
    for name, group in reversed(_GROUPS.items()):
        delattr(bpy.types.Scene, name)
        bpy.utils.unregister_class(group)
