"""The example shot: what the button, the demo and synthetic data are made of."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import addon_utils
import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from shared.request_file import read_request
from tests.addon.rigs import LEGGED, flesh, make_armature
from tests.addon.scenes import newest_job, settle, strip_of
from tests.addon.servers import module, png
from tests.server.processes import Output, descendants, wait_for_end

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example(addon):
    """The example shot beside a scene of the user's; gives both scenes."""
    if bpy.app.version < (5, 0, 0):
        # In an otherwise idle process, too: under 4.2 by enabling Rigify, under 4.5 by generating a rig.
        pytest.skip("Blender 4.2 and 4.5 as modules crash or hang at their end once Rigify was at work")
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    mine = bpy.context.scene
    texts = bpy.data.texts.new("mine.py")
    texts.use_module = True
    assert bpy.ops.poseanything.example_shot() == {"FINISHED"}
    return mine, bpy.context.scene


def test_it_has_a_scene_of_its_own(example):
    mine, scene = example
    assert scene.name == "Example Shot" and scene != mine and not mine.objects
    assert bpy.data.texts["mine.py"].use_module, "no script but Rigify's own is touched"
    assert not any(addon_utils.check("rigify")), "Rigify is enabled no longer than it is needed"
    assert scene.camera is not None and bpy.context.object.name == "Fox"
    assert scene.render.resolution_x % 32 == scene.render.resolution_y % 32 == 0
    assert (scene.frame_end - scene.frame_start) % 4 == 0


def test_it_can_be_generated_at_once(example, preferences, fake_server, tmp_path):
    _, scene = example
    preferences.autostart, preferences.address = False, fake_server()
    scene.render.engine = "BLENDER_WORKBENCH"
    settings = scene.poseanything
    settings.long_side, settings.output_folder = 128, str(tmp_path)
    settings.use_custom_range, settings.frame_end = True, 5
    assert bpy.ops.poseanything.generate() == {"FINISHED"}
    job = newest_job()
    settle(job)
    assert job.state == "DONE" and len(strip_of(job).elements) == 5 and job.take.name == "fox_001"


def test_it_walks_within_the_picture(example):
    _, scene = example
    rig = scene.objects["Fox"]
    hips = []
    for frame in (1, 41, 81):
        scene.frame_set(frame)
        heads = [
            world_to_camera_view(scene, scene.camera, rig.matrix_world @ bone.head)
            for bone in rig.pose.bones
            if bone.bone.use_deform
        ]
        assert all(0 < point.x < 1 and 0 < point.y < 1 for point in heads)
        hips.append(rig.pose.bones["hips"].head.y)
    assert hips[0] > hips[1] > hips[2]


def test_a_seed_always_makes_the_same_creature_and_seeds_differ(addon):
    build = module("examples.creatures").Build
    assert build.from_seed(0) == build() and build.from_seed(3) == build.from_seed(3)
    assert len({build.from_seed(seed) for seed in range(20)}) == 20
    for seed in range(200):
        made = build.from_seed(seed)
        assert all(0 <= value <= 1 for colour in (made.coat, made.light, made.dark) for value in colour)


def points_of(kind, seed, frame):
    """[n, 3]: the vertices of the body that is built of a kind, in a frame."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    rig = module("examples.kinds").build(bpy.context, kind, seed).rig
    points = []
    for shown in (1, frame):
        bpy.context.scene.frame_set(shown)
        body = bpy.data.objects[f"{rig.name} Body"].evaluated_get(bpy.context.evaluated_depsgraph_get())
        points.append(np.array([rig.matrix_world @ vertex.co for vertex in body.data.vertices]))
    assert np.abs(points[1] - points[0]).max() > 0.02 * np.ptp(points[0], axis=0).max(), "it does not move"
    return points[1]


def test_every_kind_moves_and_a_seed_always_makes_the_same(addon):
    kinds = module("examples.kinds")
    # Rigify: see `example`.
    for kind in kinds.KINDS if bpy.app.version >= (5, 0, 0) else kinds.MADE_UP:
        points = points_of(kind, 1, 7)
        assert len(points) > 500, kind
    again, other = points_of(kind, 1, 7), points_of(kind, 2, 7)
    assert np.array_equal(points, again) and (len(points) != len(other) or not np.allclose(points, other))


def test_a_scene_is_rendered_and_exported_as_examples(addon, tmp_path, monkeypatch):
    synthesise = module("examples.synthesise")
    monkeypatch.setattr(synthesise, "CLIPS", ((0, 1), (8, 4), (79, 1)))
    arguments = argparse.Namespace(size=(64, 48), frames=5, samples=1, renderer="workbench", look="trained")
    assert synthesise.synthesise(bpy, arguments, "spider", 3, tmp_path) == 2, "the third ends after the scene"
    clips = json.loads((tmp_path / "clips.json").read_text())
    assert [clip["subject"] for clip in clips] == ["spider-3"] * 2
    for clip in clips:
        request = read_request(tmp_path / clip["request"])
        assert len(clip["frames"]) == request.num_frames == 5
        assert all((tmp_path / name).is_file() for name in clip["frames"])
        assert (request.part_maps > 0).any((1, 2)).all() and request.part_maps.max() > 8
    with pytest.raises(synthesise.SubjectError, match="There is no subject unicorn; choose of fox, human"):
        synthesise.synthesise(bpy, arguments, "unicorn", 3, tmp_path / "other")
    with pytest.raises(synthesise.SubjectError, match="spider moves for fewer than 85 frames"):
        arguments.frames = 85
        synthesise.synthesise(bpy, arguments, "spider", 3, tmp_path / "other")


@pytest.mark.any_blender
@pytest.mark.skipif(sys.platform != "linux", reason="reads the processes from /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_whoever_renders_examples_ends_with_who_started_them(extension_zip, tmp_path, number):
    script = ROOT / "blender_addon" / "examples" / "synthesise.py"
    words = "--seeds 1 400 --subjects snake --size 64 48 --frames 5 --renderer workbench --processes 2"
    command = [sys.executable, script, "--extension", extension_zip, "--output", tmp_path, *words.split()]
    # As a shell starts one in the background, where the interrupt is ignored.
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *map(str, command)]
    with subprocess.Popen(ignoring, stdout=subprocess.PIPE, text=True, start_new_session=True) as started:
        try:
            Output(started.stdout).line("seed ")
            family = descendants(started.pid)
            assert len(family) == 3
            started.send_signal(number)
            for process in family:
                wait_for_end(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def test_a_rig_file_that_can_not_be_used_is_one_sentence(clean_scene, tmp_path):
    rig_files = module("examples.rig_files")
    (tmp_path / "rig.max").touch()
    for path, words in (
        (tmp_path / "absent.glb", "There is no file"),
        (tmp_path / "rig.max", "can't be imported"),
    ):
        with pytest.raises(rig_files.RigFileError, match=words):
            rig_files.import_rig(bpy.context, path)


def test_contact_sheet_shows_every_picture_unchanged(clean_scene, tmp_path):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    paths = []
    for number, colour in enumerate(colours):
        path = tmp_path / f"{number}.png"
        path.write_bytes(png(np.full((48, 80, 3), colour, np.uint8)))
        paths.append(path)
    first, pose, result = paths
    sheets = module("examples.contact_sheet")
    if not hasattr(clean_scene.sequence_editor_create(), "strips"):
        pytest.skip("the demo runs in newer Blenders only")
    sheet = sheets.contact_sheet((80, 48), first, [pose] * 9, [result] * 9, "title", tmp_path / "sheet.png")
    image = bpy.data.images.load(str(sheet))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    pixels = np.empty((height, width, 4), np.float32)
    image.pixels.foreach_get(pixels.ravel())
    bpy.data.images.remove(image)
    pixels = np.rint(pixels[::-1, :, :3] * 255).astype(int)
    cell, margin = sheets.CELL, sheets.MARGIN
    height = round(48 * cell / 80)
    row = sheets.HEAD + height // 2
    across = [margin + cell // 2 + column * (cell + margin) for column in range(6)]
    assert [tuple(pixels[row, x]) for x in across] == [colours[0]] + [colours[1]] * 5
    assert [tuple(pixels[row + height + margin, x]) for x in across[1:]] == [colours[2]] * 5
    assert bpy.data.scenes.get("Contact Sheet") is None


def bone_tree(path, offset_of, leg=(0, -40, 0), spine=(0, 45, 0), motion=(0, 0, 0), **pairs):
    """A motion capture file of a body without a mesh; `offset_of` turns offsets into the file's axes. `leg`
    goes on as far as it is long, `pairs` are those of further chains, of which a tail is alone; `motion`
    turns all of it."""

    def joint(word, name, offset, *below, end=(0, 10, 0)):
        place = "Xposition Yposition Zposition " if word == "ROOT" else ""
        inner = "".join(below) or "End Site\n{{\nOFFSET {} {} {}\n}}\n".format(*offset_of(end))
        channels = f"CHANNELS {6 if place else 3} {place}Zrotation Xrotation Yrotation\n"
        return (
            "{} {}\n{{\nOFFSET {} {} {}\n".format(word, name, *offset_of(offset)) + channels + inner + "}\n"
        )

    def chain(name, x, along):
        along = (x * along[0], *along[1:])
        return joint("JOINT", name, (8 * x, 0, 0), joint("JOINT", f"{name}Low", along, end=along))

    def pair(name, along):
        sides = (("Left", 1), ("Right", -1.05))[: 1 if name == "tail" else 2]  # nobody's legs are equal
        return [chain(side + name, x, along) for side, x in sides]

    upper = joint("JOINT", "Head", spine, *pair("ear", pairs.pop("ear", (0, 1, 0))), end=(0, 20, 0))
    arms = [one for name, along in pairs.items() for one in pair(name, along)]
    root = joint(
        "ROOT", "Hips", (0, 0, 0), *pair("Leg", leg), joint("JOINT", "Spine", (0, 10, 0), upper, *arms)
    )
    turned = " ".join(map(str, motion))
    rows = "\n".join(f"0 0 0 {turned} {4 * i}" + " 0" * (3 * root.count("JOINT") - 1) for i in range(9))
    path.write_text(f"HIERARCHY\n{root}MOTION\nFrames: 9\nFrame Time: 0.04\n{rows}\n")
    return path


TURNS = {"Y": lambda o: o, "Z": lambda o: (o[0], -o[2], o[1])}
"""From a place with Y up to one with another axis up."""


@pytest.mark.parametrize("up", TURNS)
def test_a_motion_capture_file_stands_and_has_a_body_as_thick_as_its_skeleton_is_large(
    clean_scene, tmp_path, up
):
    path, told = bone_tree(tmp_path / "walk.bvh", TURNS[up]), []
    rig = module("examples.rig_files").import_rig(bpy.context, path, tell=told.append)
    [body] = module("examples.rig_files").bodies_of(clean_scene, rig)
    points = np.array([vertex.co for vertex in body.data.vertices])
    bones = np.array([bone.head_local for bone in rig.data.bones] + [b.tail_local for b in rig.data.bones])
    size = np.linalg.norm(np.ptp(bones, axis=0))
    thin = min(np.ptp(points, axis=0)) / size
    assert 0.03 < thin < 0.3
    assert all(len(vertex.groups) == 1 for vertex in body.data.vertices), "nothing webs between limbs"
    assert rig.data.bones["Head"].head_local.z == pytest.approx(0.55)
    said = ["The rest pose of walk.bvh stands along the Z axis, so Z is up; take Y with --up Y."]
    assert told == (said if up == "Z" else [])
    assert len(bpy.data.armatures) == len(bpy.data.actions) == 1


FIGURES = {
    "standing": {},
    "legs apart": {"leg": (15, -40, 3), "arm": (25, -25, 0)},
    "with hanging arms": {"arm": (0, -25, 0)},
    "with arms down to the knees": {"leg": (14, -40, 3), "spine": (0, 30, 0), "arm": (-10, -33, 0)},
    "on all fours": {"spine": (0, 0, 60), "arm": (0, -40, 2)},
    "with a tail and ears": {"tail": (0, 5, -30), "ear": (2, 10, 0)},
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
@pytest.mark.parametrize("up", TURNS)
def test_a_figure_stands_on_its_legs_whatever_it_does_in_its_motion(clean_scene, tmp_path, figure, up):
    path = bone_tree(tmp_path / "crawl.bvh", TURNS[up], **figure, motion=(90, 0, 0))
    rig = module("examples.rig_files").import_rig(bpy.context, path)
    assert rig.data.bones["LeftLegLow"].tail_local.z == pytest.approx(-0.8)


def test_where_a_rest_pose_tells_no_axis_the_user_is_asked(clean_scene, tmp_path):
    """As of files in which every bone begins along one axis of the bone before."""
    path, told = tmp_path / "all.bvh", []
    bone_tree(path, TURNS["Y"], leg=(0, 0, 40), spine=(0, 0, 60), arm=(0, 0, 20))
    rig_files = module("examples.rig_files")
    rig = rig_files.import_rig(bpy.context, path, tell=told.append)
    assert "does not tell which axis is up" in told[0] and rig.data.bones["Head"].head_local.y < -0.5
    rig = rig_files.import_rig(bpy.context, path, up="Z", tell=told.append)
    assert len(told) == 1 and bpy.context.object.data.bones["Head"].head_local.z > 0.5
    with pytest.raises(rig_files.RigFileError, match="leave out --up"):
        (tmp_path / "a.glb").write_text("a")
        rig_files.import_rig(bpy.context, tmp_path / "a.glb", up="Z")


@pytest.mark.parametrize("way", [(0, 0, 9), (0, 9, 0), (9, 0, 0), (40, 60, 0)])
def test_the_camera_keeps_the_whole_motion_in_view(clean_scene, way):
    rig = make_armature("Rig", LEGGED)
    flesh(rig).hide_viewport = way == (9, 0, 0)  # as importers leave what is hidden in an old file
    for frame, share in ((1, 1.0), (24, 0.0)):
        rig.location = tuple(share * value for value in way)
        rig.keyframe_insert("location", frame=frame)
    scenes = module("examples.scenes")
    scenes.set_format(clean_scene)
    clean_scene.frame_end = 24
    scenes.stage(bpy.context, rig)
    for frame in range(1, 25):
        clean_scene.frame_set(frame)
        for bone in rig.pose.bones:
            seen = world_to_camera_view(clean_scene, clean_scene.camera, rig.matrix_world @ bone.head)
            assert 0 < seen.x < 1 and 0 < seen.y < 1 and seen.z > 0
    tall = [
        world_to_camera_view(clean_scene, clean_scene.camera, rig.matrix_world @ rig.pose.bones[name].head).y
        for name in ("head", "shin.L")
    ]
    assert tall[0] - tall[1] > 0.15, "however far it goes, it is seen from near"


def test_what_is_wide_is_filmed_from_the_front(clean_scene):
    rig = make_armature("Rope", {"a": ((-3, 0, 1), (0, 0, 1), ""), "b": ((0, 0, 1), (3, 0, 1), "a")})
    flesh(rig, thickness=0.1)
    scenes = module("examples.scenes")
    scenes.set_format(clean_scene)
    scenes.stage(bpy.context, rig)
    ends = [world_to_camera_view(clean_scene, clean_scene.camera, Vector((x, 0, 1))).x for x in (-3, 3)]
    assert ends[1] - ends[0] > 0.5


def test_a_character_that_lies_linked_in_another_file_is_found(clean_scene, tmp_path):
    rig = make_armature("Rig", LEGGED)
    body = flesh(rig)
    cast = bpy.data.collections.new("Cast")
    for obj in (rig, body):
        cast.objects.link(obj)
    bpy.data.libraries.write(str(tmp_path / "cast.blend"), {cast})
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(tmp_path / "cast.blend"), link=True) as (_, chosen):
        chosen.collections = ["Cast"]
    empty = bpy.data.objects.new("Cast", None)
    empty.instance_type, empty.instance_collection = "COLLECTION", chosen.collections[0]
    bpy.data.libraries.write(str(tmp_path / "set.blend"), {empty})
    bpy.ops.wm.read_homefile(use_empty=True)
    rig_files = module("examples.rig_files")
    rig = rig_files.import_rig(bpy.context, tmp_path / "set.blend")
    assert [body.name for body in rig_files.bodies_of(bpy.context.scene, rig)] == ["flesh"]


@pytest.mark.skipif(bpy.app.version < (4, 5, 0), reason="the older importer fails on lights")
def test_an_fbx_with_a_light_in_it_is_read(clean_scene, tmp_path):
    flesh(make_armature("Rig", LEGGED))
    bpy.ops.object.light_add(type="SUN")
    bpy.ops.export_scene.fbx(filepath=str(tmp_path / "lit.fbx"))
    bpy.ops.wm.read_homefile(use_empty=True)
    rig = module("examples.rig_files").import_rig(bpy.context, tmp_path / "lit.fbx")
    assert set(LEGGED) <= set(rig.data.bones.keys())


def test_a_motion_capture_file_keeps_its_pace_in_any_encoding(clean_scene, tmp_path):
    path, told = bone_tree(tmp_path / "walk.bvh", TURNS["Y"]), []
    text = path.read_text().replace("Head", "T\u00eate")
    rows = text.splitlines()[-9:] * 100
    header = text[: text.index("MOTION")] + "MOTION\nFrames: 900\nFrame Time: TIME\n"
    import_rig = module("examples.rig_files").import_rig
    for encoding, time, frames in (("latin-1", "0.01", 81), ("utf-16", "0.001", 23), ("utf-8", "0.0", 81)):
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
        path.write_text(header.replace("TIME", time) + "\n".join(rows), encoding=encoding)
        rig = import_rig(bpy.context, path, tell=told.append)
        scene = bpy.context.scene
        assert "T\u00eate" in rig.data.bones and scene.frame_end - scene.frame_start + 1 == frames
    assert told == [
        "The action of walk.bvh has 217 frames; the first 81 are played.",
        "The action of walk.bvh has 900 frames; the first 81 are played.",
    ]


def test_what_an_importer_stumbles_over_is_told_in_plain_words(clean_scene, tmp_path):
    rig_files = module("examples.rig_files")
    (tmp_path / "cut.bvh").write_text(
        "HIERARCHY\nROOT A\n{\nOFFSET 0 0 0\nCHANNELS 3 Xrotation Yrotation Zrotation\n}\n"
    )
    with pytest.raises(rig_files.RigFileError) as raised:
        rig_files.import_rig(bpy.context, tmp_path / "cut.bvh")
    said = "cut.bvh can't be read: it is damaged, or no .bvh at all; choose another file."
    assert str(raised.value) == said
    path = bone_tree(tmp_path / "walk.bvh", TURNS["Y"])
    path.write_text(path.read_text().replace("\n0 0 0 ", "\nnan 0 0 "))
    with pytest.raises(rig_files.RigFileError, match="walk.bvh has numbers that are none in its motion"):
        rig_files.import_rig(bpy.context, path)


@pytest.mark.parametrize("kind", ["blend", "glb", "fbx", "bvh"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_broken_rig_file_is_one_sentence(clean_scene, tmp_path, kind, content):
    path = tmp_path / f"broken.{kind}"
    path.write_bytes(content)
    rig_files = module("examples.rig_files")
    with pytest.raises(rig_files.RigFileError) as raised:
        rig_files.import_rig(bpy.context, path)
    sentence = str(raised.value)
    assert sentence.startswith("broken.") and sentence.endswith(".") and "\n" not in sentence
    assert ("git lfs pull" if content else "is empty") in sentence
    assert str(tmp_path) not in sentence and "Traceback" not in sentence
