"""The client against servers that behave and servers that don't, over real sockets."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import threading
import time

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_server.broker.keys import KeyRing
from shared.keys import keys_folder
from tests.addon.relay import Relay
from tests.addon.servers import Talk, make_request, module, own_goodbyes, wait_for

pytestmark = pytest.mark.any_blender
PATIENCE = 5.0


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_frames_are_on_disk_as_they_came(fake_server, talk, tmp_path):
    talk = talk(fake_server())
    request = talk.submit(tmp_path / "take", num_frames=12)
    done = talk.ending(request.job)
    assert type(done).__name__ == "Done" and done.note == "All drawn."
    assert files(tmp_path / "take") == [f"take_{i:04d}.png" for i in range(1, 13)]
    assert all(
        (tmp_path / "take" / name).read_bytes() == request.first_frame for name in files(tmp_path / "take")
    )
    assert talk.heard("FramesSaved", request.job)[-1].count == 12
    assert talk.heard("Progress", request.job)[0].seconds_left == 12.0
    assert talk.heard("Preview", request.job)[0].image.shape == (30, 52, 3)


def test_what_nobody_takes_out_does_not_pile_up(fake_server, talk, tmp_path):
    talk = talk(fake_server())
    request = talk.submit(tmp_path / "take", num_frames=300)
    wait_for(lambda: len(list((tmp_path / "take").glob("take_*.png"))) == 300)
    wait_for(
        lambda: any(
            key[0] == request.job and key[1].__name__ == "Done" for key in list(talk.client._inbox._events)
        )
    )
    assert len(talk.client.poll(limit=1000)) < 12


def test_requests_wait_for_a_server_that_starts_later(fake_server, talk, tmp_path):
    address = fake_server()
    fake_server.kill()
    talk = talk(address)
    first = talk.submit(tmp_path / "a")
    second = talk.submit(tmp_path / "b")
    fake_server(address=address)
    assert [type(talk.ending(job)).__name__ for job in (first.job, second.job)] == ["Done", "Done"]


def test_server_that_has_lost_a_clip(fake_server, talk, tmp_path):
    address = fake_server("dies")
    talk = talk(address)
    request = talk.submit(tmp_path / "take", num_frames=30)
    wait_for(lambda: talk.heard("Interrupted", request.job))
    assert talk.client.link.state == "CONNECTING" and not talk.heard("Failed", request.job)

    fake_server(address=address)
    failed = talk.ending(request.job)
    assert "does not have this clip any more" in failed.message
    kept = len(files(tmp_path / "take"))
    assert kept == 3 and f"{kept} of 30 frames arrived and are kept" in failed.message
    again = talk.submit(tmp_path / "again")
    assert type(talk.ending(again.job)).__name__ == "Done"


def test_job_that_only_waited_in_a_killed_server_goes_to_the_next(fake_server, talk, tmp_path):
    address = fake_server(pace=20)
    talk = talk(address)
    running = talk.submit(tmp_path / "running", num_frames=100)
    queued = talk.submit(tmp_path / "queued", num_frames=5)
    wait_for(lambda: talk.heard("FramesSaved", running.job) and talk.heard("Queued", queued.job))
    fake_server.kill()
    wait_for(lambda: talk.heard("Interrupted", queued.job))
    fake_server(address=address)
    assert "does not have this clip any more" in talk.ending(running.job).message
    assert type(talk.ending(queued.job)).__name__ == "Done"
    assert files(tmp_path / "queued") == [f"take_{i:04d}.png" for i in range(1, 6)]
    assert talk.heard("Unsent", queued.job) and not talk.heard("Unsent", running.job)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_clips_go_on_with_the_next_server(real_server, talk, tmp_path, number):
    """The real one, killed or stopped in the middle, and started again on the same folder."""
    settings = {"jobs": str(tmp_path / "jobs")}
    with real_server(**settings) as server:
        talk = talk(server.address)
        options = {"engine": "plain", "engine_options": {"pause": 0.03}}
        running = talk.submit(tmp_path / "running", num_frames=60, **options)
        waiting = talk.submit(tmp_path / "waiting", num_frames=5, **options)
        wait_for(lambda: talk.heard("FramesSaved", running.job))
        server.process.send_signal(number)
        server.wait()
        wait_for(lambda: talk.heard("Interrupted", running.job))
        with real_server(address=server.address, **settings):
            for request, num_frames in ((running, 60), (waiting, 5)):
                done = talk.ending(request.job)
                assert type(done).__name__ == "Done" and done.num_frames == num_frames
            assert files(tmp_path / "running") == [f"take_{i:04d}.png" for i in range(1, 61)]
            wait_for(lambda: not [path for path in (tmp_path / "jobs").iterdir() if path.is_dir()])


def test_a_connection_that_is_cut_loses_nothing(real_server, talk, tmp_path):
    """While frames stream, again and again."""
    with real_server() as server, Relay(server.address) as relay:
        talk = talk(relay.address)
        request = talk.submit(
            tmp_path / "take", num_frames=60, engine="plain", engine_options={"pause": 0.02}
        )
        for count in (5, 20, 40):
            wait_for(
                lambda count=count: any(e.count >= count for e in talk.heard("FramesSaved", request.job))
            )
            relay.cut()
        assert type(talk.ending(request.job)).__name__ == "Done"
        assert len(talk.heard("Interrupted", request.job)) >= 3
    assert files(tmp_path / "take") == [f"take_{i:04d}.png" for i in range(1, 61)]


def test_server_that_stops_answering(fake_server, talk, tmp_path, monkeypatch):
    talk_to = talk
    monkeypatch.setattr(module("connection.link"), "SILENCE", 1.5)
    monkeypatch.setattr(module("connection.link"), "HEARTBEAT", 0.2)
    talk = talk(fake_server("mute"))
    request = talk.submit(tmp_path / "take")
    wait_for(lambda: talk.heard("Queued", request.job))
    time.sleep(2)
    assert not talk.heard("Interrupted"), (
        "a server that answers Hello is alive, however long the engine takes"
    )
    deaf = talk_to(fake_server("deaf"))
    request = deaf.submit(tmp_path / "deaf", num_frames=3)
    wait_for(lambda: deaf.heard("Interrupted", request.job))
    assert any("has not answered for" in link.sentence for link in deaf.heard("LinkState"))


def test_a_laptop_that_slept_asks_at_once(fake_server, talk, tmp_path, monkeypatch):
    """The connection is dead without either side knowing; only the clock on the wall has gone on."""
    clock = module("connection.link").time
    talk = talk(fake_server("deaf"))
    monkeypatch.setattr(module("connection.link"), "AWAKE", 0.5)
    request = talk.submit(tmp_path / "take")
    wait_for(lambda: talk.heard("Queued", request.job))
    before = clock.time
    monkeypatch.setattr(clock, "time", lambda: before() + 3600)
    wait_for(lambda: talk.heard("Interrupted", request.job), 10)


def test_two_blenders_with_one_file(real_server, talk, tmp_path):
    """As when it was copied and both are opened: who asks last goes on, and the other ends nothing."""
    with real_server() as server:
        first, second = talk(server.address), talk(server.address)
        options = {"engine": "plain", "engine_options": {"pause": 0.05}}
        request = first.submit(tmp_path / "one", num_frames=30, **options)
        wait_for(lambda: first.heard("FramesSaved", request.job))
        (tmp_path / "two").mkdir()
        writer = module("takes.writer").TakeWriter(tmp_path / "two", "take", 30)
        second.client.adopt(request.job, writer, (request.width, request.height))
        failed = first.ending(request.job)
        assert failed.code == "elsewhere"
        job = module("connection.jobs").PoseSearch(id=request.job)
        job.hear(failed)
        assert job.state == "LEFT"
        assert type(second.ending(request.job)).__name__ == "Done" and len(files(tmp_path / "two")) == 30
        wait_for(lambda: not own_goodbyes().jobs())


@pytest.mark.parametrize("keep", [True, False])
def test_what_runs_goes_on_without_its_client_or_does_not(real_server, talk, tmp_path, keep):
    with real_server() as server:
        first, second = talk(server.address), talk(server.address)
        options = {"engine": "plain", "engine_options": {"pause": 0.05}}
        request = first.submit(tmp_path / "take", num_frames=30, **options)
        wait_for(lambda: first.heard("FramesSaved", request.job))
        first.client.close(keep=keep)
        have = len(files(tmp_path / "take"))
        writer = module("takes.writer").TakeWriter(tmp_path / "take", "take", 30, have)
        second.client.adopt(request.job, writer, (request.width, request.height))
        ending = second.ending(request.job)
        assert (type(ending).__name__ == "Done") is keep
        assert (len(files(tmp_path / "take")) == 30) is keep


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("other_version", "install the same release"),
        ("garbage", "is not a PoseAnything server"),
    ],
)
def test_server_that_can_not_be_used(fake_server, talk, tmp_path, behaviour, words):
    talk = talk(fake_server(behaviour))
    wait_for(lambda: talk.client.link.state == "REFUSED")
    assert words in talk.client.link.sentence
    request = talk.submit(tmp_path / "take")
    assert words in talk.ending(request.job).message


@pytest.mark.parametrize("first", [False, True], ids=["with keys", "without"])
def test_something_else_listens_there(talk, tmp_path, monkeypatch, first):
    if first:
        monkeypatch.setenv("POSEANYTHING_KEYS", str(tmp_path))
    else:
        KeyRing(keys_folder())
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        talk = talk(f"tcp://127.0.0.1:{stranger.server_port}")
        wait_for(lambda: talk.client.link.state == "REFUSED")
        assert "is not a PoseAnything server" in talk.client.link.sentence
        stranger.shutdown()


def test_a_tunnel_whose_other_end_is_down_is_waited_for(real_server, talk, tmp_path):
    """It takes connections and closes them at once, as `ssh -L` does, until the server is there."""
    with real_server() as server, Relay(server.address) as tunnel:
        tunnel.down = True
        talk = talk(tunnel.address)
        request = talk.submit(tmp_path / "take", engine="plain")
        wait_for(lambda: talk.client._thread.is_alive() and tunnel.refused > 10)
        assert talk.client.link.state == "CONNECTING" and not talk.heard("Failed")
        tunnel.down = False
        assert type(talk.ending(request.job)).__name__ == "Done"


def test_a_server_that_is_not_the_one_of_these_keys(real_server, talk, tmp_path, monkeypatch):
    """Another user's server at the same port: nothing is sent to it until there is an invitation."""
    token = KeyRing(tmp_path / "others").invite("guest", "")
    with monkeypatch.context() as others:
        others.setenv("POSEANYTHING_KEYS", str(tmp_path / "others"))
        server = real_server()
    with server:
        stranger = talk(server.address)
        wait_for(lambda: stranger.client.link.state == "REFUSED")
        assert "paste its token in the preferences" in stranger.client.link.sentence
        guest = talk(server.address, module("shared.keys").Token.parse(str(token)))
        request = guest.submit(tmp_path / "take", engine="plain")
        assert type(guest.ending(request.job)).__name__ == "Done"
        KeyRing(tmp_path / "others").revoke("guest")
        late = talk(server.address, guest.client.token)
        wait_for(lambda: late.client.link.state == "REFUSED")
        assert "does not let your key in" in late.client.link.sentence


def test_a_server_without_keys(talk):
    with zmq.Context.instance().socket(zmq.ROUTER) as old:
        port = old.bind_to_random_port("tcp://127.0.0.1")
        talk = talk(f"tcp://127.0.0.1:{port}")
        wait_for(lambda: talk.client.link.state == "REFUSED")
    assert "is of an earlier release" in talk.client.link.sentence


@pytest.mark.parametrize(
    ("behaviour", "words", "kept"),
    [
        ("engine_fails", "The engine ran out of memory; choose a smaller size.", 3),
        ("refuses", "The prompt is empty; write one.", 0),
        ("refuses_unread", "The message can't be read.", 0),
        ("skips_frames", "a frame that was not the one expected", 3),
        ("bad_frame", "something that can't be used", 3),
        ("huge_picture", "no PNG picture of the clip's size", 3),
        ("no_picture", "no PNG picture of the clip's size", 3),
        ("fat_picture", "no PNG picture of the clip's size", 3),
        ("deep_picture", "no PNG picture of the clip's size", 3),
        ("ends_early", "after 4 of 8 frames (they are kept)", 4),
    ],
)
def test_job_that_fails_says_why_and_the_next_one_runs(fake_server, talk, tmp_path, behaviour, words, kept):
    talk = talk(fake_server(behaviour))
    request = talk.submit(tmp_path / "take")
    failed = talk.ending(request.job)
    assert type(failed).__name__ == "Failed" and words in failed.message
    assert files(tmp_path / "take") == [f"take_{i + 1:04d}.png" for i in range(kept)]
    # The same server, still misbehaving: the client stays in step with it.
    assert words in talk.ending(talk.submit(tmp_path / "next").job).message


def test_unreadable_messages_in_between_cost_nothing(fake_server, talk, tmp_path):
    talk = talk(fake_server("babbles"))
    request = talk.submit(tmp_path / "take")
    assert type(talk.ending(request.job)).__name__ == "Done"
    assert len(files(tmp_path / "take")) == 8


def test_second_request_is_queued_behind_the_first(fake_server, talk, tmp_path):
    talk = talk(fake_server(pace=100))
    first, second = talk.submit(tmp_path / "a", num_frames=20), talk.submit(tmp_path / "b")
    assert wait_for(lambda: talk.heard("Queued", second.job))[0].position == 1
    assert type(talk.ending(second.job)).__name__ == "Done"
    assert talk.heard("Done", first.job), "the first came first"


def test_cancel_holds_at_once(fake_server, talk, tmp_path):
    talk = talk(fake_server(pace=50))
    running, waiting = talk.submit(tmp_path / "a", num_frames=500), talk.submit(tmp_path / "b")
    wait_for(lambda: talk.heard("FramesSaved", running.job))
    talk.client.cancel(running.job)
    assert type(talk.ending(running.job)).__name__ == "Cancelled"
    assert 1 <= len(files(tmp_path / "a")) < 500
    assert type(talk.ending(waiting.job)).__name__ == "Done"


def test_cancel_before_there_is_a_server(talk, tmp_path):
    talk = talk("tcp://127.0.0.1:9")
    request = talk.submit(tmp_path / "take")
    talk.client.cancel(request.job)
    assert type(talk.ending(request.job)).__name__ == "Cancelled"


def test_request_that_is_too_large_to_send(fake_server, talk, tmp_path):
    talk = talk(fake_server())
    request = make_request()
    object.__setattr__(request, "first_frame", bytes(70 << 20))
    talk.submit(tmp_path / "take", request)
    assert "too large" in talk.ending(request.job).message
    assert type(talk.ending(talk.submit(tmp_path / "next").job)).__name__ == "Done"


def test_a_clock_that_is_set_loses_nothing(fake_server, talk, tmp_path, monkeypatch):
    talk, real = talk(fake_server(pace=40)), time.time
    request = talk.submit(tmp_path / "take", num_frames=40)
    for frame, hours in ((5, 1), (15, -1)):
        wait_for(lambda frame=frame: len(files(tmp_path / "take")) >= frame)
        monkeypatch.setattr(time, "time", lambda hours=hours: real() + 3600 * hours)
    assert type(talk.ending(request.job)).__name__ == "Done"
    assert len(files(tmp_path / "take")) == 40


def test_folder_that_disappears(fake_server, talk, tmp_path):
    talk = talk(fake_server(pace=20))
    folder = tmp_path / "take"
    request = talk.submit(folder, num_frames=200)
    wait_for(lambda: talk.heard("FramesSaved", request.job))
    folder.rename(tmp_path / "elsewhere")
    assert "is gone" in talk.ending(request.job).message
    assert type(talk.ending(talk.submit(tmp_path / "next").job)).__name__ == "Done", (
        "the server was told to stop the other"
    )


def test_full_disk(real_server, talk, tmp_path):
    """What does not fit stays at the server, and is fetched when there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, timeout=240
    ).returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        with real_server() as server:
            talk = talk(server.address)
            request = talk.submit(disk / "take", num_frames=40, engine="plain")
            failed = talk.ending(request.job)
            kept = files(disk / "take")
            assert "is full" in failed.message and failed.code == "elsewhere"
            assert f"the {len(kept)} of 40 frames that arrived are kept" in failed.message
            assert kept == [f"take_{i + 1:04d}.png" for i in range(len(kept))] and kept
            subprocess.run(["mount", "-o", "remount,size=4M", disk], check=True, timeout=240)
            writer = module("takes.writer").TakeWriter(disk / "take", "take", 40, len(kept))
            talk.events.clear()
            talk.client.adopt(request.job, writer, (request.width, request.height))
            assert type(talk.ending(request.job)).__name__ == "Done"
            assert files(disk / "take") == [f"take_{i + 1:04d}.png" for i in range(40)]
    finally:
        subprocess.run(["umount", disk], check=True, timeout=240)


def test_address_that_is_none(addon):
    client = module("connection.client").BridgeClient("localhost/47847")
    with pytest.raises(ValueError, match="write it as tcp://127.0.0.1:47847"):
        client.start()
    client.close()


@pytest.fixture(scope="module")
def hostile(addon):
    """A socket that says whatever a test wants, and a client that listens to it."""
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    socket.linger = 0
    socket.curve_server = True
    socket.curve_secretkey = KeyRing(keys_folder()).server_secret
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    talk = Talk(f"tcp://127.0.0.1:{port}")
    identity = socket.recv_multipart()[0]
    yield socket, identity, talk
    talk.client.close()
    socket.close()


@given(parts=st.lists(st.binary(max_size=200), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_harm_the_client(hostile, parts):
    socket, identity, talk = hostile
    wire, messages = module("shared.wire"), module("shared.messages")
    socket.send_multipart([identity, *parts])
    socket.send_multipart([identity, *wire.encode(messages.Welcome("hostile", (), "", 7))])
    wait_for(lambda: talk.heard("Welcome"))
    talk.events.clear()
    assert talk.client.link.state == "CONNECTED"


def test_closing_takes_no_time_though_something_was_said_to_a_server_that_had_just_gone(
    fake_server, talk, tmp_path
):
    talk = talk(fake_server(pace=5))
    request = talk.submit(tmp_path / "take", num_frames=30)
    wait_for(lambda: talk.heard("FramesSaved", request.job))
    with talk.client.parked(PATIENCE) as still:  # so that the command comes before the news of the server
        assert still
        fake_server.kill()
        time.sleep(0.3)
        talk.client.cancel(request.job)
    wait_for(lambda: talk.client.link.state == "CONNECTING")
    talk.client.close(10)
    assert not talk.client._thread.is_alive()


def test_closing_waits_no_longer_than_its_limit_though_zeromq_is_busy(addon):
    """As while the system looks up the name of a server."""
    client = module("connection.client").BridgeClient("tcp://127.0.0.1:1")
    client.start()
    busy = client._context.socket(zmq.PAIR)
    closing = threading.Thread(target=client.close, args=(0.2,), daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    busy.close()
    client._thread.join(10)
    assert client._context.closed


def test_the_thread_stands_still_while_it_is_parked_and_goes_on_after(addon):
    """Blender can end when an operator runs beside a Python thread that is busy."""
    client = module("connection.client").BridgeClient("tcp://127.0.0.1:1")
    client.start()
    try:
        steps = []
        for _ in range(3):
            with client.parked(PATIENCE) as still:
                assert still
                client.cancel("unknown")
                steps.append(client._commands.qsize())
            wait_for(lambda: client._commands.qsize() == 0)
        assert steps == [1, 1, 1]
    finally:
        client.close()
    with client.parked(PATIENCE) as still:
        assert still, "a thread that has ended is still"
