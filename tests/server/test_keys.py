"""Who is let in: those who were invited, until they are not any more; and nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import zmq
from zmq.utils import z85

from inference_server.broker import ServerError
from inference_server.broker.keys import KeyRing
from shared import wire
from shared.keys import LOCAL_NAME, LOCAL_TOKEN, Token, keys_folder, local_token
from shared.messages import Accepted, Cancelled, Hello, Welcome

from .client import ROOT, Client, ServerProcess, request, user_token


def command(*arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "inference_server", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)


def answer(address: str, token: Token | None, patience: float = 1.0) -> bool:
    """Whether somebody with these keys, or without any, is answered."""
    with zmq.Context.instance().socket(zmq.DEALER) as socket:
        socket.linger = 0
        if token is not None:
            token.apply_to(socket)
        socket.connect(address)
        socket.send_multipart(wire.encode(Hello()))
        if not socket.poll(int(1000 * patience)):
            return False
        return isinstance(wire.decode(socket.recv_multipart()), Welcome)


def test_strangers_are_not_answered(server, tmp_path):
    """As another user of this computer would try: without keys, with keys of their own making, and with the
    right client key but another server's."""
    other = KeyRing(tmp_path).invite("mallory", "")
    mine = user_token("honest", keys_folder())
    server_key = mine.server_key
    assert not answer(server.address, None)
    assert not answer(server.address, Token("", server_key, other.public_key, other.secret_key))
    assert not answer(server.address, Token("", other.server_key, mine.public_key, mine.secret_key))
    assert answer(server.address, mine, 30) and answer(server.address, local_token(), 30)


def test_keys_come_and_go_while_the_server_runs(server):
    ring = KeyRing(keys_folder())
    with Client(server.address, user="gone-by-then") as client:
        client.send(request("left behind", "plain", num_frames=1000, engine_options={"pause": 0.05}))
        client.wait_for(Accepted)
    ring.revoke("gone-by-then")
    with Client(server.address, user="for-a-day") as client, server.client() as other:
        client.send(request("running", "plain", num_frames=1000, engine_options={"pause": 0.05}))
        client.wait_for(Accepted)
        ring.revoke("for-a-day")
        client.send(request("late", "plain"))
        deadline = time.monotonic() + 30
        while other.welcome().jobs:
            assert time.monotonic() < deadline, "the jobs of a key that is revoked end"
            time.sleep(0.05)
        assert not client.of(Cancelled)
        client.send(Hello())
        while client.socket.poll(300):
            assert not isinstance(client.receive(), Welcome)
    assert not answer(server.address, user_token("for-a-day", keys_folder()))


def test_commands_invite_list_and_revoke(server):
    invited = command("invite", "--name", "anna", "--address", server.address)
    assert invited.returncode == 0 and invited.stdout.count("\n") == 1
    token = Token.parse(invited.stdout)
    assert token.address == server.address and answer(token.address, token, 30)
    assert "anna" in command("keys").stdout
    assert "anna" in [row["name"] for row in json.loads(command("keys", "--json").stdout)]
    again = command("invite", "--name", "anna")
    assert again.returncode == 1 and "invited already" in again.stderr and again.stderr.count("\n") == 1
    assert command("keys", "revoke", "anna").returncode == 0
    assert not answer(token.address, token)
    shut = command("status", "--server", str(token))
    assert shut.returncode == 1 and "No server that lets you in answers" in shut.stderr
    gone = command("keys", "revoke", "anna")
    assert gone.returncode == 1 and "no key named 'anna'" in gone.stderr
    assert token.secret_key.hex() not in str([path.read_bytes() for path in keys_folder().rglob("*.key")])


@pytest.mark.parametrize("words", [["--name", "../x"], ["--address", "tcp://0.0.0.0:1"], ["--address", "x"]])
def test_invitations_that_can_not_be(words):
    done = command("invite", *words)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
def test_nobody_else_can_read_the_keys(tmp_path):
    folder = tmp_path / "keys"
    ring = KeyRing(folder)
    ring.invite("anna", "tcp://127.0.0.1:1")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {
        "server.key_secret": 0o600,
        LOCAL_TOKEN: 0o600,
        f"{LOCAL_NAME}.key": 0o600,
        "anna.key": 0o600,
    }


def test_two_first_starts_at_once_make_one_set_of_keys(tmp_path):
    code = (
        "import sys; from pathlib import Path; from inference_server.broker.keys import KeyRing; "
        "print(KeyRing(Path(sys.argv[1])).server_key.decode())"
    )
    line = [sys.executable, "-c", code, str(tmp_path / "keys")]
    starts = [subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({start.communicate(timeout=240)[0] for start in starts}) == 1
    ring = KeyRing(tmp_path / "keys")
    (key,) = ring.keys()
    token = Token.parse((tmp_path / "keys" / LOCAL_TOKEN).read_text())
    assert ring.name_of(key.user) == LOCAL_NAME
    assert ring.callback("", z85.encode(token.public_key))


def test_revoking_this_computers_own_key_makes_a_new_one(tmp_path):
    ring = KeyRing(tmp_path)
    before = Token.parse((tmp_path / LOCAL_TOKEN).read_text())
    ring.revoke(LOCAL_NAME)
    after = Token.parse((tmp_path / LOCAL_TOKEN).read_text())
    known = [ring.name_of(z85.encode(token.public_key)) for token in (before, after)]
    assert known == [None, LOCAL_NAME]


@pytest.mark.parametrize("deleted", [LOCAL_TOKEN, f"clients/{LOCAL_NAME}.key", "server.key_secret"])
def test_a_file_that_was_deleted_does_not_lock_this_computer_out(tmp_path, deleted):
    before = Token.parse((KeyRing(tmp_path).folder / LOCAL_TOKEN).read_text())
    (tmp_path / deleted).unlink()
    ring = KeyRing(tmp_path)
    token = Token.parse((tmp_path / LOCAL_TOKEN).read_text())
    assert ring.name_of(z85.encode(token.public_key)) == LOCAL_NAME
    assert z85.encode(token.server_key) == ring.server_key
    assert (token.public_key == before.public_key) == (deleted != LOCAL_TOKEN), "jobs go by it"


def test_what_is_no_key_keeps_nobody_out(tmp_path):
    user = z85.encode(KeyRing(tmp_path).invite("anna", "").public_key)
    (tmp_path / "clients" / "folder.key").mkdir()
    (tmp_path / "clients" / "bytes.key").write_bytes(b"\xff\xfe")
    assert KeyRing(tmp_path).name_of(user) == "anna"


@pytest.mark.parametrize("name", ["server.key_secret", LOCAL_TOKEN])
@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"cut off", None])
def test_damaged_keys_are_one_sentence(tmp_path, name, damage):
    KeyRing(tmp_path)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(ServerError, match=f"{name} is damaged; put it back from a backup, or delete it"):
        KeyRing(tmp_path)


def test_keys_that_can_not_be_kept(tmp_path):
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(ServerError, match="POSEANYTHING_KEYS"):
        KeyRing(tmp_path / "keys")


def test_a_public_address_needs_somebody_invited(tmp_path, monkeypatch):
    monkeypatch.setenv("POSEANYTHING_KEYS", str(tmp_path))
    done = command("serve", "--address", "tcp://0.0.0.0:0")
    assert done.returncode == 2 and done.stdout == ""
    assert "none has been invited" in done.stderr and done.stderr.count("\n") == 1
    token = KeyRing(tmp_path).invite("anna", "tcp://127.0.0.1:1")
    with ServerProcess(arguments=["--address", "tcp://0.0.0.0:0"]) as server:
        address = server.address.replace("0.0.0.0", "127.0.0.1")
        assert answer(address, token, 30) and not answer(address, None)
