"""What is set for each engine: made of what the engine says of itself, kept in the file, sent, and taken back
from takes."""

from __future__ import annotations

import json
from dataclasses import replace

import bpy
import pytest

from tests.addon import fake_server as fake
from tests.addon.scenes import newest_job, session
from tests.addon.servers import described_there, module


@pytest.fixture
def engine_settings(addon):
    """The module, knowing nothing at first; what it knew before is told to it again."""
    engine_settings = module("engine_settings")
    before = engine_settings.described()
    engine_settings.follow(())
    yield engine_settings
    engine_settings.follow(before)


STUDIO = next(engine for engine in fake.ENGINES if engine.name == "studio")


@pytest.fixture
def studio(engine_settings, clean_scene):
    """(module, scene, the engine's description, its group)."""
    (engine,) = described_there([STUDIO])
    engine_settings.follow([engine])
    return engine_settings, clean_scene, engine, engine_settings.group_of(clean_scene, "studio")


def test_properties_are_those_that_the_engine_describes(studio):
    engine_settings, scene, engine, group = studio
    properties = group.bl_rna.properties
    threshold = properties[engine_settings.option_property("threshold")]
    assert (threshold.name, threshold.description) == ("Threshold", "How much")
    assert threshold.hard_max == pytest.approx(0.3) and threshold.default == pytest.approx(0.1)
    cache = properties[engine_settings.option_property("cache")]
    assert [(item.identifier, item.name, item.description) for item in cache.enum_items] == [
        ("none", "None", ""),
        ("all", "All", "Everything"),
    ]
    assert [item.identifier for item in properties["guider"].enum_items] == ["none", "push", "turn"]
    assert properties["steps"].default == 50


def test_values_are_the_defaults_until_they_are_set(studio):
    engine_settings, scene, engine, group = studio
    defaults = {option.name: option.default for option in engine.options}
    assert engine_settings.options(scene, engine) == defaults
    assert engine_settings.guidance(scene, engine).guider == "none"
    assert engine_settings.num_inference_steps(scene, engine) == 50
    setattr(group, engine_settings.option_property("threshold"), 0.3)
    setattr(group, engine_settings.option_property("cache"), "all")
    assert engine_settings.options(scene, engine) == defaults | {"threshold": 0.3, "cache": "all"}
    group.guider, group.guidance_start, group.guidance_stop = "push", 0.25, 0.1
    setattr(group, engine_settings.parameter_property("push", "guidance_scale"), 7)
    guidance = engine_settings.guidance(scene, engine)
    assert guidance.parameters == {"guidance_scale": 7.0, "text_negative": True}
    assert (guidance.start, guidance.stop) == (0.1, 0.1)


def test_what_is_not_set_follows_the_engine_to_another_default(studio):
    engine_settings, scene, engine, group = studio
    push = engine.guider("push")
    strength = engine_settings.parameter_property("push", "guidance_scale")

    def shown(default):
        told = replace(push.parameters[0], default=default)
        guider = replace(push, parameters=(told, *push.parameters[1:]))
        other = replace(engine, guiders=(engine.guiders[0], guider, *engine.guiders[2:]))
        engine_settings.follow([other])
        group = engine_settings.group_of(scene, "studio")
        group.guider = "push"
        sent = engine_settings.guidance(scene, other).parameters["guidance_scale"]
        assert sent == pytest.approx(getattr(group, strength))
        return sent

    assert (shown(2.0), shown(1.0)) == (2.0, 1.0)
    setattr(engine_settings.group_of(scene, "studio"), strength, 1.0)
    assert shown(2.0) == 1.0, "set by hand, if only to what it was"


def test_values_outlive_their_engine_a_reload_and_other_choices(studio, tmp_path):
    engine_settings, scene, engine, group = studio
    group.steps = 12
    setattr(group, engine_settings.option_property("cache"), "all")
    bpy.ops.poseanything.add_strength(engine="studio", option="loras", choice="fur.safetensors")
    group.guider = "turn"
    set_to = engine_settings.options(scene, engine)
    assert set_to["loras"] == {"fur.safetensors": 1.0}
    engine_settings.follow(())
    assert engine_settings.group_of(scene, "studio") is None
    path = str(tmp_path / "film.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    scene = bpy.context.scene
    more = replace(engine, options=engine.options[::-1])
    engine_settings.follow([more])
    assert engine_settings.options(scene, more) == set_to
    assert engine_settings.guidance(scene, more).guider == "turn"
    assert engine_settings.num_inference_steps(scene, more) == 12


def test_what_the_engine_no_longer_has_is_told_and_left_out_but_not_forgotten(studio):
    engine_settings, scene, engine, group = studio
    setattr(group, engine_settings.option_property("cache"), "all")
    for name in ("fur.safetensors", "film.safetensors"):
        bpy.ops.poseanything.add_strength(engine="studio", option="loras", choice=name)
    fewer = replace(
        engine,
        options=tuple(
            replace(option, choices=option.choices[:1]) if option.choices else option
            for option in engine.options
        ),
    )
    engine_settings.follow([fewer])
    values = engine_settings.options(scene, fewer)
    assert values["cache"] == "none" and values["loras"] == {"film.safetensors": 1.0}
    assert engine_settings.unavailable(scene, fewer) == [
        "Cache: Studio has no 'all'; it is left out.",
        "LoRAs: Studio has no 'fur.safetensors'; it is left out.",
    ]
    engine_settings.follow([engine])
    assert engine_settings.options(scene, engine)["cache"] == "all"
    assert list(engine_settings.options(scene, engine)["loras"]) == ["fur.safetensors", "film.safetensors"]


def test_presets_set_what_they_name_and_show_when_that_was_replace(studio, monkeypatch):
    engine_settings, scene, engine, group = studio
    scene.poseanything.engine = "studio"
    bpy.ops.poseanything.add_strength(engine="studio", option="loras", choice="fur.safetensors")

    def shown():
        preset, modified = engine_settings.current_preset(scene, engine)
        return preset and preset.name, modified

    assert shown() == ("release", False)
    assert bpy.ops.poseanything.use_preset(preset="fast") == {"FINISHED"}
    assert shown() == ("fast", False) and group.steps == 20
    assert engine_settings.options(scene, engine)["cache"] == "all"
    assert engine_settings.options(scene, engine)["loras"] == {"fur.safetensors": 1.0}, (
        "no preset names LoRAs"
    )
    group.steps = 30
    assert shown() == ("fast", True)
    bpy.ops.poseanything.use_preset(preset="close")
    assert shown() == ("close", False) and group.steps == 50
    assert engine_settings.options(scene, engine)["cache"] == "none"
    assert engine_settings.guidance(scene, engine).parameters["guidance_scale"] == 3.0
    setattr(group, engine_settings.parameter_property("push", "text_negative"), False)
    assert shown() == ("close", True)
    group.guider = "none"
    assert shown() == ("release", False), "which is what is set now"
    faster = replace(engine, default_steps=8)
    engine_settings.follow([faster])
    assert engine_settings.num_inference_steps(scene, faster) == 8, "no preset said otherwise"


def test_engines_are_known_again_before_a_server_answers(studio, addon):
    engine_settings, scene, engine, group = studio
    group.steps = 9
    addon.unregister()
    assert not hasattr(bpy.types.Scene, "poseanything_engine_studio")
    addon.register()
    assert [about.name for about in engine_settings.described()] == ["studio"]
    assert session().engine("studio").options == engine.options
    assert engine_settings.num_inference_steps(bpy.context.scene, engine) == 9


def test_a_damaged_memory_of_the_engines_is_passed_over(studio, addon):
    engine_settings = studio[0]
    addon.unregister()
    try:
        engine_settings._file().write_bytes(b"\xc1 nothing of this")
    finally:
        addon.register()
    assert engine_settings.described() == ()


def test_what_is_set_is_sent_recorded_and_made_again(shot, served, sent, tmp_path):
    served()
    settings, engine_settings = shot.poseanything, module("engine_settings")
    bpy.ops.poseanything.generate(wait=True)  # the server has described its engines by now
    settings.engine = "studio"
    group = engine_settings.group_of(shot, "studio")
    bpy.ops.poseanything.use_preset(preset="fast")
    bpy.ops.poseanything.add_strength(engine="studio", option="loras", choice="fur.safetensors")
    group.guider = "push"
    bpy.ops.poseanything.generate(wait=True)
    request = sent[-1]
    assert request.engine == "studio" and request.num_inference_steps == 20
    assert request.engine_options["cache"] == "all"
    assert request.engine_options["loras"] == {"fur.safetensors": 1.0}
    assert request.guidance.guider == "push" and request.guidance.parameters["guidance_scale"] == 2.0
    take = newest_job().take
    kept = json.loads((take.folder / "take.json").read_text())["record"]["engine_settings"]
    assert kept["options"] == request.engine_options and kept["guidance"]["guider"] == "push"

    bpy.ops.poseanything.use_preset(preset="release")
    bpy.ops.poseanything.remove_strength(engine="studio", option="loras", index=0)
    settings.engine = "AUTO"
    bpy.ops.poseanything.make_again(take_id=newest_job().id)
    assert sent[-1].engine_options == request.engine_options
    assert sent[-1].guidance == request.guidance and sent[-1].num_inference_steps == 20


def test_a_take_of_another_release_is_taken_as_far_as_it_goes(studio):
    engine_settings, scene, engine, group = studio
    kept = {
        "num_inference_steps": 7,
        "options": {"cache": "some", "speed": 3, "parts": 4, "loras": {"gone": 1.0}},
        "guidance": {"guider": "push", "parameters": {"guidance_scale": 99.0}, "start": 0.5, "stop": 0.75},
    }
    notices = engine_settings.restore(scene, engine, kept)
    assert engine_settings.num_inference_steps(scene, engine) == 7
    values = engine_settings.options(scene, engine)
    assert values["parts"] == 4 and values["cache"] == "none" and values["loras"] == {}
    guidance = engine_settings.guidance(scene, engine)
    assert (guidance.guider, guidance.start, guidance.stop) == ("push", 0.5, 0.75)
    text = " ".join(notices)
    for words in ("Cache is 'some'", "no option 'speed'", "LoRAs has no 'gone'", "Strength is 99"):
        assert words in text
    assert len(notices) == 4
    assert engine_settings.restore(scene, engine, {"guidance": {"guider": "pull"}}) == [
        "Studio has no guidance 'pull'; it is left as it was."
    ]


def test_guidance_by_the_camera_without_a_camera_is_refused_before_it_is_sent(shot, served, sent):
    served()
    bpy.ops.poseanything.generate(wait=True)
    shot.poseanything.engine = "studio"
    module("engine_settings").group_of(shot, "studio").guider = "turn"
    before = len(sent)
    with pytest.raises(RuntimeError, match="Turn guides by the camera's motion, and there is none; add one"):
        bpy.ops.poseanything.generate(wait=True)
    assert len(sent) == before


def test_an_engine_that_is_not_ready_is_not_used_in_silence(shot, served):
    served()
    shot.poseanything.engine_name = "poseanything"
    with pytest.raises(RuntimeError, match="PoseAnything can't run: Its weights are not here"):
        bpy.ops.poseanything.generate(wait=True)


@pytest.mark.parametrize("words", [("a", "b"), ("a_b",), ("a b",), ("é", "b"), ("x" * 64, "y" * 64)])
def test_names_of_properties_are_of_rna_and_apart(engine_settings, words):
    identifier = engine_settings._identifier(*words)
    assert identifier.isascii() and identifier.isidentifier() and len(identifier) < 64
