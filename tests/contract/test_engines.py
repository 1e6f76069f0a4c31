"""What an engine says of itself, and that every request is held against it in one sentence."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_server.engines import ENGINES, describe_engine
from shared.engines import (
    EngineDescription,
    Guidance,
    GuiderDescription,
    OptionChoice,
    OptionDescription,
    Preset,
    check_guidance,
    check_request,
    check_values,
    describe_options,
    find_engine,
    option,
)
from shared.schema import MessageError
from tests.contract.strategies import assert_one_sentence, options, png
from tests.contract.test_message_roundtrip import line_pose, request


@dataclass(frozen=True)
class Options:
    """Every type of option, and a field that is none."""

    cache: str = option(
        "none", "Cache", "What is left out", choices={"none": ("None", ""), "all": ("All", "")}
    )
    threshold: float = option(0.1, "Threshold", "How much", minimum=0.0, maximum=1.0, advanced=True)
    steps: int = option(6, "Part Steps", "How many", minimum=0, maximum=50, group="Parts")
    compile: bool = option(False, "Compile", "Compile")
    note: str = option("", "Note", "Anything")
    loras: dict = option({}, "LoRAs", "Files", minimum=-2, maximum=2)
    own: int = 3


SCALE = OptionDescription("guidance_scale", "float", "Strength", "How far", 2.0, 0.0, 30.0)
ENGINE = EngineDescription(
    "plain",
    "Plain",
    "A test.",
    neural=True,
    size_multiple=32,
    frame_step=4,
    max_frames=9,
    guiders=(
        GuiderDescription("none", "None", "One evaluation"),
        GuiderDescription("push", "Push", "Two", evaluations=2, parameters=(SCALE,)),
        GuiderDescription("turn", "Turn", "Two", evaluations=2, needs_camera=True),
    ),
    options=describe_options(Options, {"loras": ["fur.safetensors", "film.safetensors"]}),
    presets=(Preset("fast", "Fast", "Few steps", {"cache": "all"}, num_inference_steps=4),),
)


def asked(**fields):
    return request(width=64, height=64, first_frame=png(64, 64), engine="plain", **fields)


def test_a_dataclass_describes_its_options():
    described = {about.name: about for about in ENGINE.options}
    assert list(described) == ["cache", "threshold", "steps", "compile", "note", "loras"]
    assert [about.type for about in described.values()] == [
        "choice", "float", "int", "bool", "text", "strengths",
    ]  # fmt: skip
    assert [choice.name for choice in described["loras"].choices] == ["fur.safetensors", "film.safetensors"]
    assert described["threshold"].advanced and described["steps"].group == "Parts"
    assert {about.name: about.default for about in described.values()} == {
        field.name: getattr(Options(), field.name) for field in dataclasses.fields(Options)[:-1]
    }


def test_files_that_can_not_be_named_in_a_message_are_left_out():
    names = ["\udce9.safetensors", *(f"{number}.safetensors" for number in range(400))]
    (loras,) = [about for about in describe_options(Options, {"loras": names}) if about.name == "loras"]
    assert len(loras.choices) == 256
    assert (loras.choices[0].name, loras.choices[0].label) == ("0.safetensors", "0")


def test_what_is_left_out_has_its_default():
    values = check_values({"steps": 2, "loras": {"fur.safetensors": 1}}, ENGINE.options, "Plain")
    assert values == {
        "cache": "none",
        "threshold": 0.1,
        "steps": 2,
        "compile": False,
        "note": "",
        "loras": {"fur.safetensors": 1.0},
    }
    assert check_guidance(ENGINE, Guidance("push"), has_camera=False) == {"guidance_scale": 2.0}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_frames": 3}, "can't make 3 frames; choose 1 or 5"),
        ({"num_frames": 13}, "at most 9 frames, not 13"),
        ({"engine_options": {"speed": 1}}, "Plain has no option 'speed'; it has cache, threshold"),
        ({"engine_options": {"cache": "some"}}, "Cache is 'some'; choose one of none, all"),
        ({"engine_options": {"cache": True}}, "Cache is True; choose one of"),
        ({"engine_options": {"threshold": 1.5}}, "Threshold is 1.5; it must lie between 0 and 1"),
        ({"engine_options": {"steps": 51}}, "Part Steps is 51; it must lie between 0 and 50"),
        ({"engine_options": {"steps": 1.5}}, "Part Steps must be a whole number"),
        ({"engine_options": {"compile": 1}}, "Compile must be true or false"),
        ({"engine_options": {"note": 5}}, "Note must be text"),
        ({"engine_options": {"loras": "fur.safetensors"}}, "LoRAs must be a table"),
        ({"engine_options": {"loras": {"gone": 1.0}}}, "LoRAs has no 'gone'; choose among fur"),
        ({"engine_options": {"loras": {"fur.safetensors": 3}}}, "strength of fur.safetensors is 3; it must"),
        ({"guidance": Guidance("pull")}, "Plain has no guidance 'pull'; choose one of none, push, turn"),
        (
            {"guidance": Guidance("push", {"speed": 1})},
            "Push has no option 'speed'; it has guidance_scale",
        ),
        (
            {"guidance": Guidance("push", {"guidance_scale": 31})},
            "Strength is 31; it must lie between 0 and 30",
        ),
        ({"guidance": Guidance("none", {"guidance_scale": 3})}, "None has no option .*; it has none"),
        ({"guidance": Guidance("turn")}, "Turn guides by the camera's motion, and there is none; add one"),
    ],
    ids=str,
)
def test_a_wrong_value_is_one_clear_sentence(fields, sentence):
    frames = {"num_frames": 5} | fields
    with pytest.raises(MessageError, match=sentence) as caught:
        check_request(asked(pose=line_pose(frames["num_frames"]), **frames), ENGINE)
    assert_one_sentence(caught.value)


def test_a_size_that_does_not_fit_is_told_with_the_nearest():
    with pytest.raises(MessageError, match="multiples of 32, not 64 x 48; choose 64 x 64"):
        check_request(request(), dataclasses.replace(ENGINE, frame_step=1))


def test_what_fits_passes():
    eyes = np.repeat(np.eye(3, dtype=np.float32)[None], 5, 0)
    loras = {"fur.safetensors": -2, "film.safetensors": 0.5}
    check_request(
        asked(
            num_frames=5,
            pose=line_pose(5),
            camera_motion=eyes,
            guidance=Guidance("turn"),
            engine_options={"cache": "all", "threshold": 0, "loras": loras},
        ),
        ENGINE,
    )


def test_an_engine_that_describes_nothing_takes_no_options_and_no_guidance():
    plain = EngineDescription("plain", "Plain", "", neural=False)
    assert check_guidance(plain, Guidance(), has_camera=False) == {}
    with pytest.raises(MessageError, match="choose one of none"):
        check_guidance(plain, Guidance("push"), has_camera=False)
    with pytest.raises(MessageError, match="no option 'cache'; it has none"):
        check_values({"cache": "none"}, plain.options, plain.label)


@given(options())
def test_a_default_is_always_allowed(about):
    assert about.check(about.default) == about.default


@given(options(), st.none() | st.integers() | st.floats() | st.text() | st.booleans() | st.just({"": "x"}))
def test_a_value_is_taken_in_its_type_or_refused_in_a_sentence(about, value):
    try:
        taken = about.check(value)
    except MessageError as error:
        assert str(error).endswith(".")
    else:
        kinds = {"bool": bool, "int": int, "float": float, "choice": str, "text": str, "strengths": dict}
        assert type(taken) is kinds[about.type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: dataclasses.replace(ENGINE, guiders=ENGINE.guiders + ENGINE.guiders[:1]),
        lambda: dataclasses.replace(ENGINE, options=ENGINE.options + ENGINE.options[:1]),
        lambda: dataclasses.replace(ENGINE, presets=ENGINE.presets * 2),
        lambda: dataclasses.replace(ENGINE.guiders[1], parameters=(SCALE, SCALE)),
        lambda: dataclasses.replace(ENGINE.options[0], choices=(OptionChoice("none", "None"),) * 2),
    ],
)
def test_a_name_is_given_once(make):
    with pytest.raises(MessageError, match="twice; give each a name of its own"):
        make()


def test_a_default_outside_its_own_range_is_refused():
    with pytest.raises(MessageError, match="Strength is 2; it must lie between 3 and 30"):
        dataclasses.replace(SCALE, minimum=3)


@pytest.mark.parametrize("name", ENGINES)
def test_the_engines_presets_are_theirs(name):
    about = describe_engine(name)
    for preset in about.presets:
        check_values(preset.options, about.options, about.label)
        check_guidance(about, preset.guidance, has_camera=True)
    assert name == about.name


@pytest.mark.parametrize("name", ENGINES)
def test_every_text_of_the_engines_explains_itself(name):
    about = describe_engine(name)
    parameters = [parameter for guider in about.guiders for parameter in guider.parameters]
    choices = [choice for option in about.options for choice in option.choices]
    for item in (*about.guiders, *about.presets, *about.options, *parameters):
        assert item.label and item.help and not item.help.endswith("."), item
    assert all(choice.label for choice in choices)
    assert about.summary.endswith(".") and about.runs_on.endswith(".")


def test_without_a_name_the_best_engine_that_is_ready_is_taken():
    engines = [dataclasses.replace(describe_engine(name), ready=True) for name in ENGINES]
    for best in ("poseanything", "draft"):
        assert find_engine(engines, "").name == best
        engines = [engine for engine in engines if engine.name != best]
    assert [engine.name for engine in engines if engine.experimental] == ["mini"]
    assert find_engine(engines, "") is None and find_engine(engines, "mini").name == "mini"
