"""Engines in a Ray cluster of two nodes on one machine: an actor hangs, a node is lost in mid-job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from shared.messages import Cancelled, Done, Frame, Progress

from .client import ROOT, ServerProcess, request
from .engines import ENGINES
from .processes import wait_for_end
from .test_slots import homes

pytest.importorskip("ray", reason="Ray is not installed")
psutil = pytest.importorskip("psutil")


@pytest.fixture(scope="module")
def nodes():
    """The cluster's two nodes, each with a card that is made up; the head is the first."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # where the nodes' processes find the tests' engines
        patch.setenv("OMP_NUM_THREADS", "1")
        room = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=room)
        try:
            cluster.add_node(**room)
            yield cluster, *cluster.list_all_nodes()
        finally:
            cluster.shutdown()


def on_node(node, process: int) -> bool:
    return process in processes_of(node)


def processes_of(node) -> list[int]:
    raylet = node.all_processes["raylet"][0].process.pid
    return [child.pid for child in psutil.Process(raylet).children(recursive=True)]


@pytest.fixture(scope="module")
def server(nodes):
    settings = {"ray": nodes[0].address, "workers": 2, "cancel_grace": 60.0, "hung_timeout": 8.0}
    with ServerProcess(ENGINES, **settings) as process:
        yield process


def test_each_card_of_a_cluster_keeps_the_model_that_it_has_loaded(nodes, server):
    cluster, head, other = nodes
    with server.client() as client:
        p, q = map(int, homes(client).values())
    assert on_node(head, p) != on_node(head, q) and on_node(other, p) != on_node(other, q)


def test_a_cluster_serves_as_this_machine_does_and_outlives_a_node(nodes, server, tmp_path):
    cluster, head, lost = nodes
    asked = subprocess.run(
        [sys.executable, "-m", "inference_server.worker.on_ray", cluster.address],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
    )
    assert asked.stdout.split()[-1] == "2", "one worker for each card"
    with server.client() as client:
        for name in ("a", "b"):
            client.send(request(name, "plain", num_frames=1000, engine_options={"pause": 0.1}))
        for name in ("a", "b"):
            client.wait_for(Frame, job=name)
        client.cancel("b")
        assert isinstance(client.ending("b"), Cancelled)
        drawn = max(progress.step for progress in client.of(Progress, job="b"))
        assert drawn - len(client.of(Frame, job="b")) <= 4, "it ended within a step"
        client.send(request("who", "plain"))
        survivor = int(client.ending("who").note)
        assert on_node(head, survivor) != on_node(lost, survivor)
        client.cancel("a")
        client.ending("a")

        os.kill(survivor, signal.SIGSTOP)
        for name in ("e", "f"):  # on both, as neither has told by then that it hangs
            client.send(request(name, "plain", num_frames=10, engine_options={"pause": 0.1}))
        for name in ("e", "f"):
            assert int((client.of(Done, job=name) or [client.ending(name)])[0].note) != survivor
        wait_for_end(survivor)  # else it would keep the place of the next

        for name in ("c", "d"):
            options = {"until": str(tmp_path / "lost")}  # nothing is done before the node has gone
            client.send(request(name, "plain", num_frames=30, engine_options=options))
        for name in ("c", "d"):
            client.wait_for(Frame, job=name)
        going = processes_of(lost)
        cluster.remove_node(lost, allow_graceful=False)
        for process in going:
            wait_for_end(process)
        (tmp_path / "lost").touch()
        while len(client.of(Done)) < 5:
            client.receive()
        for done in client.of(Done)[3:]:
            assert on_node(head, int(done.note))
            assert [frame.index for frame in client.of(Frame, job=done.job)] == list(range(30))
    assert "Ray cluster was lost" in server.log and "Traceback" not in server.log


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--ray", "127.0.0.1:1"], "No Ray cluster answers at 127.0.0.1:1"),
        (["--ray", "127.0.0.1:1", "--cards", "0"], "leave out --cards"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_sentence(words, sentence):
    done = subprocess.run(
        [sys.executable, "-m", "inference_server", "serve", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
    )
    assert done.returncode and sentence in done.stderr and done.stderr.count("\n") == 1, done.stderr
