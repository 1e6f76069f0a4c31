"""Texts: whole, found by whoever translates them, and shown in the user's language."""

from __future__ import annotations

import copy
import json

import bpy
import pytest

from shared.sentences import put_together, say, take_apart
from tests.addon import texts
from tests.addon.servers import module

NEARLY_ALL = 0.9
"""So much of the texts is in each language: what was said last may be translated later."""


@pytest.mark.any_blender
def test_no_text_is_put_together_of_pieces():
    assert not texts.glued()


@pytest.mark.any_blender
def test_reports_are_in_the_user_s_language():
    assert not texts.unshown()


@pytest.fixture(scope="module")
def every(addon):
    return texts.told() | texts.spoken() | texts.named(bpy) | texts.described()


def test_languages_have_nearly_all_texts_with_the_same_places(every):
    assert len(every) > 500
    for language, own in module("texts.translation").LANGUAGES.items():
        there = [text for text in every if text in own]
        assert len(there) >= NEARLY_ALL * len(every), (
            f"run python -m tests.addon.texts: {language} lacks texts"
        )
        english = {key: key if isinstance(key, str) else key[1] for key in own}
        wrong = [key for key in own if texts.places(english[key]) != texts.places(own[key])]
        assert not wrong, "another language names the same places, with the same formats"


@pytest.mark.any_blender
def test_what_the_server_says_keeps_its_template_on_the_way():
    for text in texts.told():
        values = {place.partition("!")[0]: 0.5 if place[-1] in "fg%" else "x" for place in texts.places(text)}
        sentence = say(text, **values)
        assert put_together(take_apart(sentence), str(sentence)).template == text, text


def test_whatever_is_registered_is_looked_up_in_our_context(addon):
    context = module("texts.translation").CONTEXT
    settings = bpy.context.scene.poseanything.bl_rna
    assert {p.translation_context for p in settings.properties if p.identifier in ("view", "frame_step")} == {
        context
    }
    operator = bpy.ops.poseanything.export_control_videos.get_rna_type()
    assert operator.translation_context == operator.properties["directory"].translation_context == context
    assert bpy.types.POSEANYTHING_PT_main.bl_translation_context == context


def test_texts_are_shown_in_the_user_s_language(addon, monkeypatch):
    say, translation = module("texts").say, module("texts.translation")
    table = {
        "{what}, {time} left": "noch {time}: {what}",
        "Frame {frames} of {total}": "Bild {frames} von {total}",
        "No camera.": "Keine Kamera.",
    }
    monkeypatch.setattr(translation, "_translate", lambda text: table.get(text, text))
    text = say("{what}, {time} left", what=say("Frame {frames} of {total}", frames=3, total=9), time="0:05")
    assert text == "Frame 3 of 9, 0:05 left" and json.loads(json.dumps(text)) == text
    for same in (text, copy.deepcopy(text), module("errors").ExportError(text)):
        assert translation.shown(same) == "noch 0:05: Bild 3 von 9"
    assert translation.shown(module("errors").ExportError("No camera.")) == "Keine Kamera."
    assert translation.shown(say("{name}: {{}}", name="{x}")) == "{x}: {}"
    headline = module("texts").Headline(module("errors").ExportError("No camera.").args[0])
    assert headline == "No camera" and translation.shown(copy.deepcopy(headline)) == "Keine Kamera"
    nested = say("{what}, {time} left", what=headline, time="0:05")
    assert nested == "No camera, 0:05 left" and translation.shown(nested) == "noch 0:05: Keine Kamera"
    within = say("{what}, {time} left", what=module("errors").ExportError("No camera."), time="0:05")
    assert translation.shown(within) == "noch 0:05: Keine Kamera."
    failed = module("shared.messages").Failed(message=text)
    assert translation.shown(failed.message) == "noch 0:05: Bild 3 von 9", (
        "a message keeps what it was made of"
    )


def test_classes_of_an_extension_that_was_installed_over_are_left_alone(addon):
    translation, stale = module("texts.translation"), {"gone": "SomethingThatIsNoLonger()"}
    place = {"__module__": f"{addon.__name__}.settings", "__annotations__": stale}
    kept = type("Stale", (bpy.types.PropertyGroup,), place)
    translation.unregister()
    translation.register()
    assert kept.__annotations__ == {"gone": "SomethingThatIsNoLonger()"}
