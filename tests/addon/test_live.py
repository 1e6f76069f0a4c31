"""The live view's logic: what is sent when, and that nothing is left of it."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from tests.addon.servers import make_request, module, overridden, wait_for


def view():
    return module("live.view").get()


@pytest.fixture
def live(shot, served):
    served()
    assert bpy.ops.poseanything.live() == {"FINISHED"}
    wait_for_picture(0)
    yield shot
    view().end()


def wait_for_picture(before: int) -> int:
    """Poll until the newest pose has its picture; gives its number."""

    def drawn():
        view().poll()
        assert view().on, view().sentence
        return view().ready and view()._number > before and not view()._sent

    wait_for(drawn)
    return view()._number


def colour() -> int:
    picture = view().picture
    assert (picture.width, picture.height) == (128, 72)
    return round(float(picture._pixels[0, 0, 0]) * 255)


def pose_now() -> int:
    """The colour of the scene's pose now, as the fake server draws it."""
    scene, depsgraph = bpy.context.scene, bpy.context.evaluated_depsgraph_get()
    return int(view().opened.follower.read(scene, depsgraph)[0].points[0, 0]) % 256


def handlers() -> list[int]:
    return [len(getattr(bpy.app.handlers, name)) for name in module("live.view")._HANDLERS]


def test_every_new_pose_has_its_picture_and_off_costs_nothing(shot, served):
    before = handlers()
    served()
    bpy.ops.poseanything.live()
    number = wait_for_picture(0)
    assert view().note == "All is ready." and colour() == pose_now()
    rig = bpy.data.objects["Rig"]
    rig.location.x += 1.0  # posed, not keyed
    bpy.context.view_layer.update()
    number = wait_for_picture(number)
    assert colour() == pose_now()
    bpy.context.view_layer.update()
    assert view()._number == number, "the same pose is not sent again"
    shot.frame_set(16)
    number = wait_for_picture(number)
    shot.camera.rotation_euler.z += 0.1
    bpy.context.view_layer.update()
    wait_for_picture(number)
    assert colour() == pose_now()
    assert tuple(bpy.data.images["PoseAnything Live"].size) == (128, 72)
    bpy.ops.poseanything.live()
    assert not view().on and handlers() == before
    assert not bpy.app.timers.is_registered(module("live.view")._tick)
    assert not bpy.data.images["PoseAnything Live"].is_dirty, "closing Blender asks nothing"


def test_opening_loses_no_pose_that_is_not_keyed(shot, served):
    served()
    shot.frame_set(12)
    rig = bpy.data.objects["Rig"]
    bone = rig.pose.bones["bone0"]
    bone.rotation_euler, rig.location = (0.1, 0.2, 0.7), (0, 0, 0.3)
    bpy.context.view_layer.update()
    bpy.ops.poseanything.live()
    assert tuple(bone.rotation_euler) == pytest.approx((0.1, 0.2, 0.7)) and shot.frame_current == 12
    assert tuple(rig.location) == pytest.approx((0, 0, 0.3))
    wait_for_picture(0)
    assert colour() == pose_now()
    view().end()


def test_what_was_opened_is_opened_anew_when_it_changes(live, monkeypatch):
    check = view().check
    view()._checked = 0.0
    assert not check(bpy.context)
    bpy.data.armatures["Rig"].bones["bone2"].poseanything.limb = "SKIP"
    view()._checked = 0.0
    assert check(bpy.context)
    monkeypatch.setattr(module("live.opening"), "make_first_frame", None)  # the picture is used again
    session, limbs = view().session, len(view().opened.message.request.pose.limbs)
    bpy.ops.poseanything.refresh_live(anew=False)
    wait_for_picture(0)
    assert view().session != session
    assert len(view().opened.message.request.pose.limbs) == limbs - 1
    live.frame_start = 6
    view()._checked = 0.0
    assert not check(bpy.context) and view().stale, "a render is the user's to ask for"
    bpy.data.objects.remove(bpy.data.objects["Rig"])
    view().follow(live, bpy.context.evaluated_depsgraph_get())
    live.frame_start, view()._checked = 5, 0.0
    assert not check(bpy.context) and view().stale and "gone" in view().sentence
    module("live.view")._before_undo()
    module("live.view")._after_undo(live)
    assert not view().opened.follower.whole


def test_it_can_be_made_anew_often_while_frames_arrive(live, tmp_path):
    """Blender ended by this, where it read a picture apart from the user's file."""
    client = module("session").get().bridge.client
    for number in range(12):
        writer = module("takes.writer").TakeWriter(tmp_path / str(number), "take", 121)
        client.submit(make_request(num_frames=121), writer)
        assert bpy.ops.poseanything.refresh_live() == {"FINISHED"}
        client.poll(1000)


def test_a_view_with_a_camera_of_its_own_has_its_own_live_view(live):
    """Two cameras at once: each is on, drawn, undone, opened anew and off by itself."""
    views, own = module("live.view"), live.camera.copy()
    own.data = live.camera.data.copy()
    own.name, own.location.x = "Side", 6.0
    live.collection.objects.link(own)
    bpy.context.view_layer.update()
    [window] = bpy.context.window_manager.windows
    area = window.screen.areas[0]
    area.type = "VIEW_3D"
    space = area.spaces.active
    space.use_local_camera, space.camera = True, own
    region = next(region for region in area.regions if region.type == "WINDOW")
    with overridden(window=window, area=area, region=region):
        assert views.of(bpy.context) is not view() and not views.of(bpy.context).on
        assert bpy.ops.poseanything.live() == {"FINISHED"}
        side = views.of(bpy.context)
    assert side.on and view().on and side.camera == "Side"
    first, second = view()._number, side._number

    def both_are_drawn():
        for one in views.all_on():
            one.poll()
        return not view()._sent and not side._sent and view()._number > first and side._number > second

    bpy.data.objects["Rig"].location.x += 1.0
    bpy.context.view_layer.update()
    wait_for(both_are_drawn)
    assert colour() == pose_now()
    assert (view().picture._pixels[0, 0] != side.picture._pixels[0, 0]).any(), "seen from two sides"
    assert {image.name for image in bpy.data.images} >= {"PoseAnything Live", "PoseAnything Live Side"}
    first, second = view()._number, side._number
    views._before_undo()
    bpy.data.objects["Rig"].location.x += 1.0
    bpy.context.view_layer.update()
    views._after_undo(live)
    wait_for(both_are_drawn)
    session = side.session
    bpy.ops.poseanything.refresh_live(anew=False, camera="Side")
    wait_for(lambda: [one.poll() for one in views.all_on()] and side.ready)
    assert side.session != session
    with overridden(window=window, area=area, region=region):
        bpy.ops.poseanything.live()
    space.use_local_camera = False
    assert view().on and not side.on, "the other goes on"
    following = handlers()
    view().end()
    assert handlers() == [count - 1 for count in following], "the last takes the handlers along"
    assert not bpy.app.timers.is_registered(views._tick)


def test_undo_goes_on_and_another_file_ends_it(live):
    number = view()._number
    view_module = module("live.view")
    view_module._before_undo()
    bpy.data.objects["Rig"].location.x += 1.0
    view_module._after_undo(live)
    wait_for_picture(number)
    assert colour() == pose_now()
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    assert not view().on and view().picture.width == 0


def test_a_server_that_ends_a_session_is_told_and_one_without_live_is_refused(shot, served, monkeypatch):
    served("live_ends")
    bpy.ops.poseanything.live()
    wait_for(lambda: view().poll() and not view().on)
    assert view().sentence == "The process that draws ended."
    monkeypatch.setattr(module("session").Session, "engines", ())
    with pytest.raises(module("errors").ExportError, match="start a newer server"):
        module("live.opening").live_engine("")


def test_a_session_comes_back_with_its_server(fake_server, talk):  # noqa: F811
    messages = module("shared.messages")
    address = fake_server()
    client = talk(address).client
    request = make_request(1)
    client.open_live(messages.LiveOpen("here", request))
    heard = []

    def answers(kind):
        heard.extend(client.poll_live())
        return [one for one in heard if isinstance(one, kind)]

    wait_for(lambda: answers(messages.LiveReady))
    for number in range(50):
        client.pose_live(messages.LivePose("here", number, request.pose))
    wait_for(lambda: (found := answers(messages.LivePicture)) and found[-1].number == 49)
    picture = answers(messages.LivePicture)[-1]
    assert (np.frombuffer(picture.data, np.uint8) == 4).all()
    heard.clear()
    fake_server.kill()
    fake_server(address=address)
    wait_for(lambda: answers(messages.LiveReady))
    client.pose_live(messages.LivePose("here", 50, request.pose))
    wait_for(lambda: answers(messages.LivePicture))
    client.close_live("here")


def test_pictures_travel_as_they_are_on_this_computer_and_compressed_from_another(
    addon, clean_scene, tmp_path
):
    chosen = module("live.opening")._travelling_as
    assert [chosen(f"tcp://{host}:1") for host in ("127.0.0.1", "[::1]", "10.0.0.2", "studio")] == [
        "raw",
        "raw",
        "jpeg",
        "jpeg",
    ]
    made, path = bpy.data.images.new("made", 64, 32), tmp_path / "made.jpg"
    clean_scene.render.image_settings.file_format = "JPEG"
    picture = module("live.picture").Picture()
    for red in (0.2, 0.8):  # the second takes the place of the first
        pixels = np.ones((32, 64, 4), np.float32)
        pixels[..., 0], pixels[:16, :, 1] = red, 0.0
        made.pixels.foreach_set(pixels.ravel())
        made.file_format, made.filepath_raw = "JPEG", str(path)
        made.save()
        kinds = module("shared.messages")
        picture.take(kinds.LivePicture("session", 1, 64, 32, "jpeg", path.read_bytes()))
        assert np.abs(picture._pixels - pixels).mean() < 0.02
    picture.take(kinds.LivePicture("session", 2, 64, 32, "jpeg", b"no picture"))
    assert np.abs(picture._pixels - pixels).mean() < 0.02, "what can't be read leaves what is shown"
    picture.clear()
    assert module("live.picture").DECODED not in bpy.data.images
