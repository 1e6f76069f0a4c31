"""Sentences keep what they were made of, and none that a stranger made does harm."""

from __future__ import annotations

import copy
import json
import pickle

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import wire
from shared.messages import Done, Failed
from shared.schema import MessageError
from shared.sentences import as_value, one_after_another, put_together, say, take_apart
from tests.contract.strategies import bits, sentences


@given(sentences())
def test_a_sentence_is_its_english_and_keeps_what_it_was_made_of(sentence):
    kept = json.loads(json.dumps(take_apart(sentence)))
    for same in (
        put_together(kept, str(sentence)),
        copy.deepcopy(sentence),
        pickle.loads(pickle.dumps(sentence)),
        str(MessageError(sentence)),
    ):
        assert bits(same) == bits(sentence)


def test_values_are_sent_as_what_they_look_like():
    error = MessageError(say("{name} must be a number.", name="The seed"))
    sentence = say(
        "{count} of {share:.1f}, {path}, {why}",
        count=np.int64(3),
        share=np.float32(0.25),
        path=2**70,
        why=error,
    )
    sent = wire.decode(wire.encode(Failed(message=sentence))).message
    assert sent == sentence == f"3 of 0.2, {2**70}, The seed must be a number."
    assert sent.values["count"] == 3 and sent.values["share"] == 0.25
    assert sent.values["why"].template == "{name} must be a number."


def test_an_error_says_its_text_as_a_sentence():
    assert str(MessageError("{name} must be text.", name="The prompt")).template == "{name} must be text."
    found = say("It is {what}.", what=MessageError("No camera."))
    assert found.values["what"].template == "No camera." and found == "It is No camera.."
    assert str(MessageError("What {others} said.")) == "What {others} said."
    assert str(MessageError(found)) is str(found)


def test_labels_and_paragraphs_are_translated_by_parts():
    label = as_value("Draft {fast}")
    assert label == "Draft {fast}" and as_value(label) is label
    text = one_after_another("No camera.", say("{count} frames.", count=3))
    assert text == "No camera. 3 frames."
    assert [part.template for part in text.values.values()] == ["No camera.", "{count} frames."]
    assert one_after_another(text) is text and one_after_another() == ""


HARMFUL = [
    ["{name.__class__}", {"name": "x"}],
    ["{name[0]}", {"name": "x"}],
    ["{0.__class__}", {"0": "x"}],
    ["{name:>99999999}", {"name": "x"}],
    ["{name:.99999999f}", {"name": 1.0}],
    ["{name:{width}}", {"name": "x", "width": 99999999}],
    ["{name!a}", {"name": "x"}],
    ["{name:.1f}", {"name": "x"}],
    ["{name}" * 10_000, {"name": "x" * 60_000}],
    ["{}", {"": "x"}],
    ["{name", {"name": "x"}],
    ["{name}", {}],
    ["{name}{name}", {"name": ""}],
    ["{name}", {"name": b"x"}],
    ["{name}", {"name": {}}],
    ["{name}", {"name": ["x"]}],
    ["{name}", {"name": [{}, "x"]}],
    ["x"],
    "xy",
    {"x": "y", "z": "w"},
    None,
    5,
]


def test_a_number_beyond_what_its_format_takes_leaves_the_text():
    assert type(put_together(["{name:g}", {"name": 10**400}], "x")) is str


@pytest.mark.parametrize("parts", HARMFUL, ids=range(len(HARMFUL)))
def test_what_is_no_sentence_of_ours_leaves_the_text_that_came_with_it(parts):
    header = {"type": "Failed", "version": 2, "message": "x", "templates": {"message": parts}}
    message = wire.decode([msgpack.packb(header)]).message
    assert message == "x" and type(message) is str


def test_nested_beyond_reason_is_left_alone():
    parts = ["x", {}]
    for _ in range(300):
        parts = ["{name}", {"name": parts}]
    assert type(put_together(parts, "x")) is str


@given(st.text(max_size=5), sentences())
def test_a_template_that_says_something_else_is_not_believed(text, sentence):
    assert put_together(take_apart(sentence), text) == text


def test_who_knows_no_templates_reads_the_text_and_the_other_way_round():
    sentence = say("{count} frames were left out.", count=3)
    header = msgpack.unpackb(wire.encode(Done(job="job", num_frames=3, seconds=1, note=sentence))[0])
    assert header["note"] == "3 frames were left out."
    del header["templates"]
    assert wire.decode([msgpack.packb(header)]).note == sentence


def test_what_is_too_long_is_cut():
    message = Failed(message=say("{name} is missing.", name="x" * 5000)).message
    assert message == "x" * 2048 and type(message) is str
