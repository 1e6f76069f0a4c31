"""Cameras that are flown replay what was seen; moves are keys that an animator can edit."""

from __future__ import annotations

import dataclasses

import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix, Vector

from tests.addon.servers import module

FRAMES = range(5, 17)


def fly(width, height, seed=1):
    """Viewports of a wild flight around the rig, one a frame."""
    random, made = np.random.default_rng(seed), []
    for step, _ in enumerate(FRAMES):
        turn = Euler((1.2 + 0.1 * random.normal(), 0.3 * random.normal(), 0.2 * step)).to_matrix().to_4x4()
        placed = Matrix.Translation(turn @ Vector((0, 0, 9 + random.normal()))) @ turn
        across = 2.0 + 0.1 * step
        projection = np.array(
            [[across, 0, 0, 0], [0, across * width / height, 0, 0], [0, 0, -1.001, -0.02], [0, 0, -1, 0]]
        )
        lens = module("view.camera").Lens(np.array(placed.inverted()), projection, 0.01, True)
        made.append(module("view").Viewport(lens, width, height))
    return made


def record(views, scene, **how):
    moves, flights = module("operators.camera_moves"), module("camera.flight")
    flight = flights.Flight()
    size = module("view.camera").render_size(scene)
    for frame, view in zip(FRAMES, views, strict=True):
        placed = Matrix(np.linalg.inv(view.frozen.view).tolist())
        flight.add(float(frame), placed, flights.seen_zoom(view, *size))
    return moves.keep_flight(bpy.context, flight, FRAMES[0], FRAMES[-1], **how)


def pixels(projection, view, points, fit):
    clip = np.column_stack([points, np.ones(len(points))]) @ (projection @ view).T
    device = clip[:, :2] / clip[:, 3:]
    return device * (fit[0] / 2, -fit[1] / 2)


@pytest.mark.parametrize("mode", ["XYZ", "QUATERNION"])
@pytest.mark.parametrize(("width", "height"), [(1280, 720), (700, 900), (1600, 500)])
def test_a_flight_replays_within_half_a_pixel(shot, mode, width, height):
    views = fly(width, height)
    shot.camera.rotation_mode = mode
    camera = record(views, shot)
    assert camera == shot.camera
    points = np.random.default_rng(2).uniform(-2, 2, (60, 3))
    longer = max(width / 832, height / 832 * 16 / 9)
    for frame, view in zip(FRAMES, views, strict=True):
        shot.frame_set(frame)
        lens = module("view").SceneCamera().lens(shot, bpy.context.evaluated_depsgraph_get())
        # The view covers the clip of 832 x 468: scaled alike until it does.
        scale = max(832 / width, 468 / height)
        flown = pixels(view.frozen.projection, view.frozen.view, points, (width * scale, height * scale))
        replayed = pixels(lens.projection, lens.view, points, (832, 468))
        assert np.abs(flown - replayed).max() < 0.5, (frame, longer)


def test_smoothing_calms_and_ends_stay_near(shot):
    views = fly(1280, 720)
    raw = np.array([np.linalg.inv(view.frozen.view)[:3, 3] for view in views])
    record(views, shot, smoothing=2.0)
    places = []
    for frame in FRAMES:
        shot.frame_set(frame)
        places.append(shot.camera.matrix_world.translation[:])
    jerk = lambda path: np.abs(np.diff(path, 2, axis=0)).mean()  # noqa: E731
    assert jerk(np.array(places)) < 0.5 * jerk(raw)


def test_a_part_is_recorded_anew_and_joins_at_both_ends(shot):
    camera = shot.camera
    for frame, x in ((1, 0.0), (30, 3.0)):
        camera.location.x = x
        camera.keyframe_insert("location", frame=frame)
    before = {frame: place(shot, frame) for frame in (1, 4, 5, 16, 17, 30)}
    record(fly(1280, 720), shot, blend=4)
    after = {frame: place(shot, frame) for frame in before}
    for frame in (1, 5, 16, 30):
        assert after[frame] == pytest.approx(before[frame], abs=0.02), frame
    assert np.abs(np.array(place(shot, 10)) - before[5]).max() > 2
    curves = list(module("rig.animation").all_curves(camera))
    keyed = {key.co.x for curve in curves if curve.data_path == "location" for key in curve.keyframe_points}
    assert keyed == {1.0, 30.0, *map(float, FRAMES)}


def place(scene, frame):
    scene.frame_set(frame)
    return scene.camera.matrix_world.translation[:]


def test_a_camera_that_others_move_is_left_alone(shot):
    camera = shot.camera
    camera.constraints.new("TRACK_TO").target = bpy.data.objects["Rig"]
    record(fly(1280, 720), shot)
    assert shot.camera != camera and camera.animation_data is None


@pytest.mark.parametrize(
    "move", [name for name in ("PAN_LEFT", "TILT_UP", "ROLL_CLOCKWISE", "ZOOM_IN", "PAN_RIGHT", "ZOOM_OUT")]
)
def test_moves_take_the_background_where_the_papers_control_does(shot, move):
    """A turn of a quarter picture and the homography that stands for it agree in the picture's middle."""
    assert bpy.ops.poseanything.add_camera_move(move=move, amount=0.25) == {"FINISHED"}
    view, fit = module("view").SceneCamera(), module("view").fit(512, 288, 512, 288)
    lenses = []
    for frame in (5, 16):
        shot.frame_set(frame)
        lenses.append(view.lens(shot, bpy.context.evaluated_depsgraph_get()))
    projector = module("view.projection").Projector(lenses, fit)
    turned = projector.pixels[:, :, :3]
    path = turned[1] @ np.linalg.inv(turned[0])
    wanted = module("shared.camera").camera_path({move.lower(): 0.25}, 2, 512, 288)[1]
    for point in ((256, 144, 1), (266, 144, 1)):
        seen, asked = path @ point, wanted @ point
        assert seen[:2] / seen[2] == pytest.approx(asked[:2] / asked[2], abs=1.5), point


def test_an_orbit_keeps_the_subject_and_its_distance(shot):
    subject = module("operators.camera_moves")._subject(bpy.context, 5)
    away = [(Vector(place(shot, 5)) - subject).length]
    bpy.ops.poseanything.add_camera_move(move="ORBIT_LEFT", amount=0.5)
    away += [(Vector(place(shot, frame)) - subject).length for frame in range(5, 17)]
    assert away == pytest.approx([away[0]] * len(away), rel=0.02)
    first, last = place(shot, 5), place(shot, 16)
    assert (Vector(first) - subject).xy.angle_signed((Vector(last) - subject).xy) == pytest.approx(
        np.pi, abs=0.05
    ) or (Vector(first) - subject).xy.angle((Vector(last) - subject).xy) == pytest.approx(np.pi, abs=0.05)
    curves = [c for c in module("rig.animation").all_curves(shot.camera) if c.data_path == "location"]
    assert len(curves[0].keyframe_points) < 18, "few enough to edit"


def test_unrest_is_noise_within_the_range_that_can_be_edited(shot):
    bpy.ops.poseanything.add_camera_move(move="HANDHELD", amount=1.0)
    modifiers = [m for curve in module("rig.animation").all_curves(shot.camera) for m in curve.modifiers]
    assert {m.type for m in modifiers} == {"NOISE"} and len(modifiers) == 6
    places = np.array([place(shot, frame) for frame in range(5, 17)])
    assert 0 < np.ptp(places, axis=0).max() < 1
    assert place(shot, 40) == pytest.approx(place(shot, 60)), "still outside of the range"


def test_the_rectangle_is_known_once_the_camera_was_looked_at(shot, monkeypatch):
    session = module("session").get()
    bpy.ops.poseanything.add_camera_move(move="PAN_LEFT", amount=0.25)
    shot.frame_set(9)
    bpy.data.objects["Rig"].pose.bones["bone2"].location.y = 0.5  # posed, not keyed
    assert bpy.ops.poseanything.look_at_camera() == {"FINISHED"}
    [path] = session.camera_paths.values()
    assert len(path) == 12 and path[-1][0, 2] > 20, "the background goes to the right"
    assert shot.frame_current == 9 and bpy.data.objects["Rig"].pose.bones["bone2"].location.y == 0.5
    engine = module("shared.engines").EngineDescription("film", "Film", "", neural=True)
    for condition, way in (("against_background", -1), ("with_background", 1)):
        about = dataclasses.replace(engine, camera_condition=condition)
        monkeypatch.setattr(session.bridge, "engines", (about,))
        planned = module("request.range").clip_range(bpy.context, shot.poseanything, about)
        drawn = module("ui.camera")._rectangle(bpy.context, planned)
        first, last = (np.mean([line.points[0, 0] for line in drawn.frame(at)]) for at in (0, -1 % len(path)))
        assert way * (last - first) > 20, condition


def test_subject_and_camera_have_a_strength_each(shot, monkeypatch):
    """A guidance that knows both is a click away, and its strengths are sliders."""
    from tests.addon.test_register_panels import draw_all

    engines, engine_settings = module("shared.engines"), module("engine_settings")
    strengths = tuple(
        engines.OptionDescription(name, "float", label, "", default=1.0, minimum=0.0, maximum=9.0)
        for name, label in (
            ("guidance_scale", "Subject Strength"),
            ("camera_guidance_scale", "Camera Strength"),
        )
    )
    guiders = (
        engines.GuiderDescription("none", "None", ""),
        engines.GuiderDescription(
            "both", "Subject and Camera", "", 3, needs_camera=True, parameters=strengths
        ),
    )
    engine = engines.EngineDescription("film", "Film", "", neural=True, guiders=guiders)
    before = engine_settings.described()
    engine_settings.follow([engine])
    try:
        monkeypatch.setattr(module("session").get().bridge, "engines", (engine,))
        assert "Follow the Camera" in draw_all()
        path = f"scene.{engine_settings.attribute('film')}.{engine_settings.GUIDER}"
        bpy.ops.wm.context_set_enum(data_path=path, value="both")
        texts = draw_all()
        assert "Follow the Camera" not in texts
        for name in ("guidance_scale", "camera_guidance_scale"):
            assert f"<{engine_settings.parameter_property('both', name)}>" in texts
    finally:
        engine_settings.follow(before)
