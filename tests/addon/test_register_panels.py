"""Every panel draws, in every state, with what the running Blender's layouts offer: their drawing is only
ever run by a window, and a window is what these Blenders don't have."""

from __future__ import annotations

import functools
import types
from dataclasses import replace

import bpy
import numpy as np
import pytest

from tests.addon.rigs import LEGGED, add_camera, flesh, make_armature, swing
from tests.addon.scenes import make_rig, newest_job, settle, strip_of
from tests.addon.servers import module, overridden, png, wait_for

LAYOUT = bpy.types.UILayout.bl_rna


class CheckedLayout:
    """Takes what a real layout takes, by its RNA, and raises for anything else; notes every text, and every
    property as <name>."""

    def __init__(self, texts):
        object.__setattr__(self, "texts", texts)

    def __setattr__(self, name, value):
        assert name in LAYOUT.properties, f"layouts have no {name}"

    def __getattr__(self, name):
        assert name in LAYOUT.functions, f"layouts have no {name}()"
        return functools.partial(self._call, LAYOUT.functions[name])

    def _call(self, function, *values, **keywords):
        takes = [p.identifier for p in function.parameters if not p.is_output]
        given = dict(zip(takes, values)) | keywords
        for key, value in given.items():
            assert key in takes, f"{function.identifier}() takes no {key}"
            parameter = function.parameters[key]
            if parameter.type == "ENUM":
                assert value in parameter.enum_items, f"there is no {key} {value}"
        self.texts.append(str(given.get("text", "")))
        if function.identifier == "prop":
            assert given["property"] in given["data"].bl_rna.properties
            self.texts.append(f"<{given['property']}>")
        if function.identifier in ("operator", "operator_menu_enum"):
            category, name = given["operator"].split(".")
            rna = getattr(getattr(bpy.ops, category), name).get_rna_type()
            assert given.get("property") is None or given["property"] in rna.properties
            return types.SimpleNamespace(**{prop.identifier: None for prop in rna.properties})
        return CheckedLayout(self.texts)


def draw_all(**context):
    """The texts on every panel that is there."""
    texts = []
    with overridden(**context):
        for name in dir(bpy.types):
            if not name.startswith("POSEANYTHING_PT_"):
                continue
            panel = getattr(bpy.types, name)
            if panel.bl_region_type == "HEADER":
                continue  # the presets' menu, which Blender draws
            if hasattr(panel, "poll") and not panel.poll(bpy.context):
                continue
            drawn = types.SimpleNamespace(layout=CheckedLayout(texts))
            drawn.split = functools.partial(panel.split, drawn)
            panel.draw(drawn, bpy.context)
        module("ui.preferences").BridgePreferences.draw(
            PreferencesView(module("preferences").get(bpy.context), CheckedLayout(texts)), bpy.context
        )
        module("ui.status_bar")._draw(types.SimpleNamespace(layout=CheckedLayout(texts)), bpy.context)
    return [text for text in texts if text]


class PreferencesView:
    """The preferences with a layout of the test's."""

    def __init__(self, preferences, layout):
        self._preferences, self.layout = preferences, layout

    def __getattr__(self, name):
        return getattr(self._preferences, name)


def test_with_nothing_there_everything_that_is_missing_is_said_at_once(clean_scene, preferences, monkeypatch):
    monkeypatch.setattr(type(module("session").get()), "looking", False)
    text = " ".join(draw_all())
    for sentence in (
        "Add an armature to the scene Example Shot",
        "Add a camera to the scene, or choose the viewport as view Add Camera",
        "Choose the folder of PoseAnything Bridge's checkout",
        "Choose Server Folder",
        "Save the file to keep takes beside it",
    ):
        assert sentence in text


def test_each_blocker_has_a_button_that_cures_it(shot, served):
    served()
    settings = shot.poseanything
    blockers = module("request.blockers").scene_blockers

    def press(words):
        [found] = blockers(bpy.context)
        assert words in found.sentence
        category, name = found.operator.split(".")
        assert getattr(getattr(bpy.ops, category), name)(**dict(found.properties)) == {"FINISHED"}
        assert not blockers(bpy.context)

    assert not blockers(bpy.context)
    make_rig("Second", 5.0)
    bpy.ops.object.select_all(action="DESELECT")
    press("Select an armature")
    shot.camera = None
    press("Add a camera")
    settings.use_custom_range, settings.frame_start, settings.frame_end = True, 9, 5
    press("comes before its start")
    settings.first_frame_source = "PICTURE"
    press("Choose the picture")
    settings.first_frame_source, settings.first_frame_path = "PICTURE", "/nowhere/fox.png"
    press("/nowhere/fox.png is not there")


def test_what_one_sidebar_tells_anew_is_redrawn_in_the_others(shot, monkeypatch):
    refresh, redrawn = module("ui.refresh"), []
    monkeypatch.setattr(refresh, "redraw", lambda: redrawn.append(True))
    screen = bpy.data.screens[0]

    def redraws():
        draw_all(screen=screen, area=screen.areas[0])
        redrawn.clear()
        refresh.tick()
        return bool(redrawn)

    monkeypatch.setattr(type(module("session").get()), "looking", False)
    redraws()
    assert not redraws()
    camera, shot.camera = shot.camera, None
    assert redraws() and not redraws()
    shot.camera = camera
    assert redraws() and not redraws()


def test_what_keeps_the_server_from_generating_is_said_before_anybody_presses(shot, served, preferences):
    served()
    settings, blockers = shot.poseanything, module("operators.serving").server_blockers
    bpy.ops.poseanything.generate(wait=True)
    assert not blockers(bpy.context)
    settings.engine = "poseanything"
    [found] = blockers(bpy.context)
    assert found.sentence == "PoseAnything can't run: Its weights are not here."
    bpy.ops.wm.context_set_enum(**dict(found.properties))
    assert not blockers(bpy.context) and settings.engine == "AUTO"
    module("session").get().bridge.disconnect()
    preferences.address = "nonsense"
    [found] = blockers(bpy.context)
    assert "write it as tcp://127.0.0.1" in found.sentence
    assert bpy.ops.poseanything.use_this_computer() == {"FINISHED"}
    assert preferences.address == "tcp://127.0.0.1:47847"
    preferences.address = "tcp://192.0.2.7:47847"
    system = bpy.context.preferences.system
    system.use_online_access = False
    assert [found.label for found in blockers(bpy.context)] == ["Allow Online Access", "Use This Computer"]
    system.use_online_access = True
    assert not blockers(bpy.context)
    assert not bpy.ops.poseanything.start_server.poll(), "it can't be started on another computer"
    system.use_online_access = False


def test_nothing_derives_from_what_is_registered(addon):
    """Blender would forget the class that it has registered first, as it did with the handles' gizmos."""
    kinds = ("Gizmo", "GizmoGroup", "Menu", "Operator", "Panel", "PropertyGroup", "UIList")
    own = [cls for kind in kinds for cls in getattr(bpy.types, kind).__subclasses__()]
    own = [cls for cls in own if cls.__module__.startswith(f"{addon.__name__}.")]
    assert len(own) > 50
    assert not [derived for cls in own for derived in cls.__subclasses__()]


def test_lines_break_between_words_and_behind_separators(monkeypatch):
    text = module("ui.text")
    monkeypatch.setattr(text, "_width", lambda line: len(line.rstrip()))
    assert text.wrapped("one two three four", 9) == ["one two", "three", "four"]
    assert text.wrapped("one two three four", 9, most=2) == ["one two", "three ..."]
    assert text.wrapped("/home/user/takes", 9) == ["/home/", "user/", "takes"]
    assert text.wrapped("at tcp://here:1", 9) == ["at", "tcp://here:1"]
    assert text.wrapped("", 9) == [""]


def test_a_name_is_not_said_twice():
    not_ready = module("operators.serving").not_ready
    engine = types.SimpleNamespace(label="PoseAnything", reason="PoseAnything needs torch.")
    assert not_ready(engine) == "PoseAnything needs torch."
    engine.reason = "Its weights are not here."
    assert not_ready(engine) == "PoseAnything can't run: Its weights are not here."


def test_names_stand_above_what_is_chosen_where_a_sidebar_is_narrow(shot, monkeypatch):
    names = {"Subjects", "First Frame", "Background", "Strips", "Format"}
    assert not names & set(draw_all())
    monkeypatch.setattr(module("ui.text"), "is_wide", lambda context: False)
    assert names <= set(draw_all())


def test_every_choice_is_drawn(shot, served):
    served()
    bpy.ops.poseanything.generate(wait=True)
    settings = shot.poseanything
    shot.view_settings.view_transform = "AgX"
    for attribute in ("subjects", "view", "first_frame_source", "pose_density"):
        for item in settings.bl_rna.properties[attribute].enum_items:
            setattr(settings, attribute, item.identifier)
            draw_all()
        settings.property_unset(attribute)
    settings.use_custom_range, settings.frame_start, settings.frame_end = True, 9, 5
    assert "comes before" in " ".join(draw_all())


def test_the_engine_is_drawn_from_what_it_says_of_itself(shot, served):
    served()
    bpy.ops.poseanything.generate(wait=True)
    settings, engine_settings = shot.poseanything, module("engine_settings")
    texts = draw_all()
    assert "Chosen: Draft" in texts and "<seed>" in texts and "<steps>" not in texts
    assert any("PoseAnything can't run: Its weights" in text for text in texts), "why not the better one"
    bridge = module("session").get().bridge
    offered = bridge.engines
    bridge.engines = tuple(replace(engine, uses_seed=False) for engine in offered)
    assert not {"<seed>", "<new_seed>"} & set(draw_all())
    bridge.engines = offered
    settings.engine = "studio"
    studio = engine_settings.group_of(shot, "studio")
    assert {"Preset", "Release", "LoRAs", "Add", "Runs well."} <= set(draw_all())
    for guider, evaluations in (("none", 1), ("push", 2), ("turn", 3)):
        studio.guider = guider
        assert (f"{evaluations} evaluations a step" in draw_all()) == (evaluations > 1)
    bpy.ops.poseanything.use_preset(preset="fast")
    assert "Fast" in draw_all()
    studio.steps = 21
    assert "Fast (modified)" in draw_all()
    for name in ("fur.safetensors", "film.safetensors"):
        bpy.ops.poseanything.add_strength(engine="studio", option="loras", choice=name)
    assert {"film", "fur"} <= set(draw_all())
    settings.engine = "poseanything"
    assert any("PoseAnything can't run: Its weights are not here." in text for text in draw_all())
    shot.poseanything.engine_name = "gone"
    draw_all()


def test_clip_in_the_making_and_made(shot, served):
    served(pace=12)
    shot.poseanything.strips_go_to = "SCENE"
    bpy.ops.poseanything.generate()
    job = newest_job()
    session = module("session").get()
    seen = set()

    def look():
        session.poll()
        seen.update(draw_all())
        return job.ended

    wait_for(look)
    assert "Scene_001: animatic, no neural network" in seen and "Draft: animatic, no neural network" in seen
    assert any(text.startswith("Frame ") and text.endswith(" left") for text in seen)
    assert "Connected" in seen and any("Its weights are not" in text for text in seen)
    shot.view_settings.view_transform = "AgX"
    texts = draw_all()
    assert any(text.startswith("AgX changes the colors") for text in texts)
    assert any(text.startswith("F12 renders the takes") for text in texts)
    assert "12 of 12 frames, animatic, no neural network" in " ".join(texts)
    assert "Scene_001: 12 frames" in texts, "success is seen without a sequencer"
    settle(job)
    shot.sequence_editor.active_strip = strip_of(job)
    assert draw_all().count("Draft: animatic, no neural network") == 3, "on the strip's own panel too"
    strip_of(job)[module("sequencer.strips").TAKE] = "{"
    texts = draw_all()
    assert "can't be read" in " ".join(texts) and texts.count("Open Folder") == 1


def test_crop_of_the_picture_is_told_before_anything_is_made(shot, addon, tmp_path):
    settings = shot.poseanything
    settings.first_frame_source = "PICTURE"
    for size, words in {
        (128, 72): "all of it",
        (128, 96): "top and bottom lose 12%",
        (200, 72): "left and right lose 18%",
    }.items():
        path = tmp_path / f"{size[0]}x{size[1]}.png"
        path.write_bytes(png(np.zeros((size[1], size[0], 3), np.uint8)))
        settings.first_frame_path = str(path)
        assert words in " ".join(draw_all())
    path.write_text("no picture any more")
    assert "lose" not in " ".join(draw_all())


def test_failure_is_told_in_the_panel(shot, served):
    served("engine_fails")
    bpy.ops.poseanything.generate()
    settle(newest_job())
    text = " ".join(draw_all())
    assert "Scene_001: The engine ran out of memory; choose" in text


def test_server_that_can_not_be_used_is_told_in_the_panel(shot, served):
    served("other_version")
    with pytest.raises(RuntimeError):
        bpy.ops.poseanything.generate()
    text = " ".join(draw_all())
    assert "Can't Be Used" in text and "install the same" in text


def test_bones_are_offered_in_pose_mode(shot):
    rig = bpy.data.objects["Rig"]
    rig.data.collections.new("Deform")
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="POSE")
    texts = draw_all()
    bpy.ops.object.mode_set(mode="OBJECT")
    assert {"Auto", "Draw", "Skip", "Deform"} <= set(texts)
    assert "Rig: limbs 3, parts 1" in texts


def test_edit_mode_is_one_sentence(shot):
    bpy.context.view_layer.objects.active = bpy.data.objects["Rig"]
    bpy.ops.object.mode_set(mode="EDIT")
    try:
        assert "is in Edit Mode; leave it first" in " ".join(draw_all())
    finally:
        bpy.ops.object.mode_set(mode="OBJECT")


def limb_names(rig):
    return [limb.name for _, choice in module("ui.limbs").choices([rig]) for limb in choice.limbs]


def test_limbs_are_chosen_anew_when_flesh_is_bound_otherwise(shot):
    rig, body = bpy.data.objects["Rig"], bpy.data.objects["Rig body"]
    kept = module("ui.limbs")._kept
    limb_names(rig)
    body.location.x += 1
    bpy.context.view_layer.update()
    assert kept, "moving does not cost a new choice"
    body.modifiers.remove(body.modifiers["Armature"])
    bpy.context.view_layer.update()
    assert not kept
    limb_names(rig)
    rig.pose.bones["bone1"].constraints.new("COPY_ROTATION")
    bpy.context.view_layer.update()
    assert not kept
    limb_names(rig)
    body.parent = rig
    bpy.context.view_layer.update()
    assert not kept


def test_what_the_user_says_of_bones_is_counted_at_once(shot):
    data, blockers = bpy.data.objects["Rig"].data, module("ui.limbs").blockers
    assert not blockers(bpy.context)
    for bone in data.bones:
        bone.poseanything.limb = "SKIP"
    bpy.context.view_layer.update()
    [none_left] = blockers(bpy.context)
    assert none_left.operator == "poseanything.forget_limbs"
    bpy.ops.poseanything.forget_limbs(**dict(none_left.properties))
    bpy.context.view_layer.update()
    assert not blockers(bpy.context)


def test_a_rig_without_limbs_is_read_once(shot, monkeypatch):
    rig, limbs = bpy.data.objects["Rig"], module("ui.limbs")
    for bone in rig.data.bones:
        bone.poseanything.limb = "SKIP"
    bpy.context.view_layer.update()
    find, reads = limbs.find_subjects, []
    monkeypatch.setattr(limbs, "find_subjects", lambda *given: reads.append(1) or find(*given))
    for _ in range(3):
        with pytest.raises(module("errors").ExportError):
            limbs.choices([rig])
    assert len(reads) == 1


def test_icons_go_when_their_job_ends(addon):
    pictures, messages = module("ui.pictures"), module("shared.messages")
    for job in "ab":
        pictures.icon_of(messages.Preview(job, 0, np.zeros((30, 52, 3), np.uint8)))
    pictures.drop_all_but({"b": None})
    previews = {name for name in pictures._icons if not name.startswith("file ")}
    assert previews == set(pictures._shown) == {"b"}
    pictures.drop_all_but(())


def test_the_panel_says_why_bones_are_drawn(clean_scene):
    rig = make_armature("Rig", LEGGED | {"steer": ((1, 0, 1), (1, 0, 2), "")})
    flesh(rig, bones=LEGGED)
    swing(rig, "head", angle=1.0)
    add_camera()
    clean_scene.frame_end = 9
    bpy.ops.object.mode_set(mode="POSE")
    try:
        for bone in rig.data.bones:
            select(rig, bone.name, bone.name in ("head", "steer", "chest"))
        rig.data.bones.active = rig.data.bones["head"]
        before = draw_all(object=rig, active_object=rig)
        assert any(text.startswith("steer: skipped: it moves no flesh") for text in before)
        assert any(text.startswith("head: drawn: has") for text in before)
        assert bpy.ops.poseanything.look_at_motion() == {"FINISHED"}
        assert clean_scene.frame_current == 1
        after = draw_all(object=rig, active_object=rig)
        assert any(text.startswith("head: drawn: moves") for text in after)
        assert any(text.startswith("chest: drawn: covers") for text in after)
    finally:
        bpy.ops.object.mode_set(mode="OBJECT")


def select(rig, name, on):
    bone = rig.pose.bones[name]
    if hasattr(bone, "select"):  # from Blender 5.0 on
        bone.select = on
    else:
        bone.bone.select = on
