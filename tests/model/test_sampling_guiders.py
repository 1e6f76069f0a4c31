"""Guidance against the paper's equations written out, its interval, and what each step costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engines import Guidance

torch = pytest.importorskip("torch")
BlockState = pytest.importorskip("diffusers.modular_pipelines.modular_pipeline").BlockState

from inference_server.poseanything.sampling.guiders import (  # noqa: E402
    ClassifierFreePoseGuidance,
    NoGuidance,
    SubjectCameraGuidance,
    SubjectCameraSeparateGuidance,
    describe_guiders,
    guiders,
    make_guider,
    repeat_first_pose,
    suggest_guidance_scale,
)
from inference_server.poseanything.sampling.linear_guidance import LinearGuidance  # noqa: E402

STEPS = 50
PREDICTIONS = {  # what a model might predict for each pair of conditions
    (pose, text): torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
    for seed, (pose, text) in enumerate(
        (pose, text)
        for pose in ("subject", "first_pose", "camera", "empty")
        for text in ("prompt", "negative_prompt")
    )
}
scales = st.floats(0, 10, width=32)


def guide(guider, step=0, num_steps=STEPS):
    """One step as a pipeline drives it. Returns the guided prediction and the conditions that the model was
    run for."""
    guider = guider if isinstance(guider, LinearGuidance) else LinearGuidance.of(guider)
    guider.set_state(step=step, num_inference_steps=num_steps, timestep=torch.tensor(999.0))
    inputs = {"pose": guider.pose_conditions, "text": guider.text_conditions, "latents": "same"}
    batches = guider.prepare_inputs(inputs)
    for batch in batches:
        assert batch.latents == "same"
        batch.noise_pred = PREDICTIONS[batch.pose, batch.text]
    assert guider.num_conditions == len(batches)
    return guider(batches)[0], [(batch.pose, batch.text) for batch in batches]


def close(guided, expected):
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-4)


def test_no_guidance_is_one_untouched_evaluation():
    guided, ran = guide(NoGuidance())
    assert torch.equal(guided, PREDICTIONS["subject", "prompt"])
    assert ran == [("subject", "prompt")]


@given(scales, st.sampled_from([(True, True), (True, False), (False, True)]))
def test_classifier_free_guidance_negates_what_it_is_told_to(scale, negatives):
    text_negative, pose_negative = negatives
    guider = ClassifierFreePoseGuidance(scale, text_negative=text_negative, pose_negative=pose_negative)
    pose = "first_pose" if pose_negative else "subject"
    text = "negative_prompt" if text_negative else "prompt"
    positive, negative = PREDICTIONS["subject", "prompt"], PREDICTIONS[pose, text]
    guided, ran = guide(guider)
    close(guided, negative + scale * (positive - negative))
    assert set(ran) <= {("subject", "prompt"), (pose, text)}


@given(scales)
def test_subject_and_camera_follow_equation_10(scale):
    z_s, z_c = PREDICTIONS["subject", "prompt"], PREDICTIONS["camera", "prompt"]
    guided, ran = guide(SubjectCameraGuidance(scale))
    close(guided, z_c + scale * (z_s - z_c))
    assert len(ran) <= 2


@given(scales, scales)
def test_separate_strengths_follow_equation_13(s_s, s_c):
    subject, camera, empty = (PREDICTIONS[pose, "prompt"] for pose in ("subject", "camera", "empty"))
    guided, ran = guide(SubjectCameraSeparateGuidance(s_s, s_c))
    close(guided, empty + s_s * (subject - empty) - s_c * (camera - empty))
    assert len(ran) <= 3


@given(st.floats(1.1, 10))
def test_equation_13_contains_equation_10_at_its_cost(scale):
    separate, ran = guide(SubjectCameraSeparateGuidance(scale, scale - 1))
    joint, ran_joint = guide(SubjectCameraGuidance(scale))
    close(separate, joint)
    assert ran == ran_joint == [("subject", "prompt"), ("camera", "prompt")]


@given(scales, scales)
def test_a_camera_that_was_learnt_moving_with_the_background_is_added(s_s, s_c):
    learnt = {"camera_condition": "with_background", "camera_strength": 3.0}
    subject, camera, empty = (PREDICTIONS[pose, "prompt"] for pose in ("subject", "camera", "empty"))
    guided, _ = guide(SubjectCameraSeparateGuidance(s_s, s_c).for_checkpoint(learnt))
    close(guided, empty + s_s * (subject - empty) + 3 * s_c * (camera - empty))
    joint = SubjectCameraGuidance(2.5, stop=0.5)
    assert joint.for_checkpoint(learnt) == SubjectCameraSeparateGuidance(2.5, -4.5, stop=0.5)
    assert joint.for_checkpoint({"camera_condition": "against_background"}) is joint
    weaker = joint.for_checkpoint(learnt | {"subject_strength": 1.0})
    assert weaker == SubjectCameraSeparateGuidance(1.0, -4.5, stop=0.5)


@pytest.mark.parametrize(
    ("guider", "evaluations"),
    [
        (NoGuidance(), 1),
        (ClassifierFreePoseGuidance(3.0), 2),
        (ClassifierFreePoseGuidance(1.0), 1),
        (SubjectCameraGuidance(2.0), 2),
        (SubjectCameraGuidance(1.0), 1),
        (SubjectCameraSeparateGuidance(2.5, 0.7), 3),
        (SubjectCameraSeparateGuidance(2.5, 0.0), 2),
        (SubjectCameraSeparateGuidance(1.0, 0.0), 1),
    ],
)
def test_only_conditions_that_matter_are_evaluated(guider, evaluations):
    assert len(guide(guider)[1]) == evaluations


@given(st.integers(0, 49), st.floats(0, 0.98), st.floats(0.001, 1))
def test_outside_the_interval_a_step_costs_one_evaluation(step, start, length):
    stop = min(1.0, start + length)
    guider = SubjectCameraSeparateGuidance(2.5, 0.7, start=start, stop=stop)
    guided, ran = guide(guider, step)
    if int(start * STEPS) <= step < int(stop * STEPS):
        assert len(ran) == 3
    else:
        assert ran == [("subject", "prompt")]
        assert torch.equal(guided, PREDICTIONS["subject", "prompt"])


def test_a_video_with_guidance_over_the_first_half_costs_half_as_much_again():
    guider = ClassifierFreePoseGuidance(3.0, stop=0.5)
    assert sum(len(guide(guider, step)[1]) for step in range(STEPS)) == 75


def test_a_disabled_guider_leaves_the_prediction_alone():
    guider = LinearGuidance.of(SubjectCameraGuidance(4.0))
    guider.disable()
    assert torch.equal(guide(guider)[0], PREDICTIONS["subject", "prompt"])


def test_half_precision_predictions_are_combined_in_single_precision():
    subject, camera = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    guided = LinearGuidance.of(SubjectCameraGuidance(5.3)).forward(pred_cond=subject, pred_camera=camera).pred
    assert guided.dtype == torch.bfloat16
    exact = camera.double() + 5.3 * (subject.double() - camera.double())
    assert ((guided.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-6).all()


def test_a_modular_block_state_serves_as_well():
    state = BlockState(posed=1, still=2, latents=torch.zeros(2))
    guider = LinearGuidance.of(ClassifierFreePoseGuidance(3.0))
    fields = {"pose": ("posed", "still"), "latents": "latents"}
    batches = guider.prepare_inputs_from_block_state(state, fields)
    assert [batch.pose for batch in batches] == [1, 2]
    assert all(batch.latents is state.latents for batch in batches)


def test_guiders_survive_being_saved(tmp_path):
    guider = LinearGuidance.of(ClassifierFreePoseGuidance(3.5, text_negative=False, start=0.1, stop=0.6))
    guider.save_pretrained(tmp_path)
    loaded = LinearGuidance.from_pretrained(tmp_path)
    assert loaded.guider == guider.guider
    assert loaded.text_conditions == ("prompt", "prompt")
    for step in (0, 10, 40):
        assert torch.equal(guide(loaded, step)[0], guide(guider, step)[0])


@pytest.mark.parametrize(
    ("guidance", "expected"),
    [
        (Guidance(), NoGuidance()),
        (
            Guidance("classifier_free", {"guidance_scale": 2.0, "text_negative": False}, stop=0.5),
            ClassifierFreePoseGuidance(2.0, text_negative=False, stop=0.5),
        ),
        (
            Guidance("subject_camera", {"guidance_scale": 3.0}, start=0.2),
            SubjectCameraGuidance(3.0, start=0.2),
        ),
        (
            Guidance("subject_camera_separate", {"guidance_scale": 3.0, "camera_guidance_scale": 0.5}),
            SubjectCameraSeparateGuidance(3.0, 0.5),
        ),
    ],
)
def test_a_request_gets_the_guider_it_names(guidance, expected):
    guider = make_guider(guidance)
    assert guider == expected
    for step in (0, 20, 49):
        assert guide(guider, step)[1] == guide(expected, step)[1]
        assert torch.equal(guide(guider, step)[0], guide(expected, step)[0])


@pytest.mark.parametrize(
    "guidance",
    [
        Guidance(guider="subject_camera", start=1.0),
        Guidance(guider="subject_camera", start=0.5, stop=0.5),
        Guidance("classifier_free", {"text_negative": False, "pose_negative": False}),
    ],
)
def test_guidance_that_could_do_nothing_is_refused_in_a_sentence(guidance):
    with pytest.raises(ValueError, match=r"(let it|negate).*\.$"):
        make_guider(guidance)


def test_negative_poses_repeat_the_first_where_there_are_poses():
    poses = np.zeros((6, 2, 2), np.uint8)
    for frame in (1, 2, 4):
        poses[frame] = frame
    assert repeat_first_pose(poses, (1, 2, 4)).max((1, 2)).tolist() == [0, 1, 1, 0, 1, 0]
    assert not repeat_first_pose(poses, ()).any()


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_sparser_poses_bear_stronger_guidance(one, other):
    sparse, dense = sorted((one, other))
    assert 1.2 <= suggest_guidance_scale(dense) <= suggest_guidance_scale(sparse) <= 3.0


@pytest.mark.parametrize(("ratio", "scale"), [(1.0, 1.2), (0.1**0.5, 2.1), (0.1, 3.0), (0.025, 3.0)])
def test_suggested_strength_meets_table_6_at_both_densities(ratio, scale):
    assert suggest_guidance_scale(ratio) == pytest.approx(scale)


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_share_of_poses_is_refused(ratio):
    with pytest.raises(ValueError, match="above 0"):
        suggest_guidance_scale(ratio)


def test_the_automatic_strength_keeps_all_else():
    asked = Guidance(
        "classifier_free", {"guidance_scale": 9.0, "pose_negative": False, "scale_by_density": True}, stop=0.5
    )
    guider = make_guider(asked).for_poses(0.1)
    assert guider == ClassifierFreePoseGuidance(3.0, pose_negative=False, stop=0.5)
    assert make_guider(asked).for_poses(1.0).weights() == pytest.approx((1.2, -0.2))
    plain = ClassifierFreePoseGuidance(9.0)
    assert plain.for_poses(0.1) is plain


def test_there_is_no_automatic_strength_without_a_pose():
    with pytest.raises(ValueError, match=r"pose a frame\.$"):
        ClassifierFreePoseGuidance(scale_by_density=True).for_poses(0.0)


def test_every_guider_is_found_and_describes_itself():
    described = {about.name: about for about in describe_guiders()}
    known = ["none", "classifier_free", "subject_camera", "subject_camera_separate"]
    assert list(described) == list(guiders()) and [name for name in described if name in known] == known
    assert [described[name].evaluations for name in known] == [1, 2, 2, 3]
    assert [described[name].needs_camera for name in known] == [False, False, True, True]
    learnt = {about.name: about for about in describe_guiders({"camera_condition": "with_background"})}
    assert [learnt[name].evaluations for name in known] == [1, 2, 3, 3]
    for name, cls in guiders().items():
        defaults = {about.name: about.default for about in described[name].parameters}
        assert cls(**defaults) == cls() == make_guider(Guidance(name))


def test_a_checkpoint_declares_the_strength_that_subjects_have_by_default():
    declared, separate = {"subject_strength": 1.0}, Guidance("subject_camera_separate")
    about = next(about for about in describe_guiders(declared) if about.name == separate.guider)
    assert {parameter.name: parameter.default for parameter in about.parameters} == {
        "guidance_scale": 1.0,
        "camera_guidance_scale": 1.0,
    }
    assert make_guider(separate, declared) == SubjectCameraSeparateGuidance(1.0, 1.0)
    assert make_guider(separate, {"subject_strength": None}) == SubjectCameraSeparateGuidance(2.0, 1.0)
    stronger = replace(separate, parameters={"guidance_scale": 3.0})
    assert make_guider(stronger, declared) == SubjectCameraSeparateGuidance(3.0, 1.0)


@pytest.mark.parametrize(
    ("guidance", "sentence"),
    [
        (Guidance("strong"), "no guider 'strong'; choose one of none, "),
        (Guidance("subject_camera", {"camera": 1.0}), "Subject and Camera has no option 'camera'"),
        (
            Guidance("subject_camera", {"guidance_scale": 31.0}),
            "Strength is 31; it must lie between 0 and 30",
        ),
    ],
)
def test_a_guider_that_there_is_not_is_told_in_a_sentence(guidance, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_guider(guidance)
