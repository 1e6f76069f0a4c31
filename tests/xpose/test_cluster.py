"""The stages on a Ray cluster of two nodes on this machine, of which one is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("ray.data", reason="Ray Data is not installed", exc_type=ImportError)
pytest.importorskip("av", reason="PyAV is not installed")

from inference_server.cli import main  # noqa: E402
from inference_server.xpose import cluster  # noqa: E402
from inference_server.xpose.pipeline import Group, RunSettings  # noqa: E402
from inference_server.xpose.stages import XPoseError  # noqa: E402
from inference_server.xpose.store import WorkFolder  # noqa: E402

from .footage import encode, lizard  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def nodes():
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_worker_niceness", "0")
        room = {"num_cpus": 1, "object_store_memory": 200 << 20, "include_dashboard": False}
        both = Cluster(initialize_head=True, head_node_args=room)
        try:
            lost = both.add_node(**room)
            ray.init(address=both.address, logging_level="ERROR", log_to_driver=False)
            yield both, lost
        finally:
            ray.shutdown()
            both.shutdown()


def everything(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_cluster_makes_the_same_data_set_though_a_node_is_lost(nodes, tmp_path, monkeypatch):
    both, lost = nodes
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(3):
        encode(videos / f"{number}.mp4", lizard(9 if number else 17, number)[0])
    (videos / "damaged.mp4").write_bytes(b"no video at all")
    words = ["xpose", "run", str(videos), "--frames", "9", "--least-frames", "9"]
    words += ["--box", "0.02", "0.1", "0.9", "0.9", "--output"]
    assert main([*words, str(tmp_path / "local" / "set"), "--processes", "1"]) == 0

    write = WorkFolder.write_clip
    written = []

    def lose_a_node(self, span, *more):
        written.append(span.name)
        if len(written) == 1:
            both.remove_node(lost)
        return write(self, span, *more)

    monkeypatch.setattr(WorkFolder, "write_clip", lose_a_node)
    assert main([*words, str(tmp_path / "cluster" / "set"), "--ray", both.address]) == 0
    clips = ["0.mp4#0001", "0.mp4#0002", "1.mp4#0001", "2.mp4#0001"]
    assert sorted(written) == clips, "each clip is done once"
    assert everything(tmp_path / "cluster") == everything(tmp_path / "local")


class _Broken:
    """What makes a step that has no weights."""

    kind = "subject"

    def __call__(self):
        raise XPoseError("There are no weights.")


def test_what_is_no_clips_fault_ends_the_run_with_its_sentence(nodes, tmp_path):
    row = cluster.make_row("item", "a clip")
    batch = {name: [value] for name, value in row.items()}
    failed = cluster.Work(Group((_Broken(),), True, 1))(batch)
    run = cluster.ClusterRun(tmp_path, WorkFolder(tmp_path), RunSettings(), {}, nodes[0].address)
    with pytest.raises(XPoseError, match="There are no weights"):
        run.take({name: values[0] for name, values in failed.items()})


def test_a_cluster_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("nobody")))
    with pytest.raises(XPoseError, match=r"No Ray cluster answers at 10.0.0.1:1 \(nobody\); start one"):
        cluster.ClusterRun(tmp_path, WorkFolder(tmp_path), RunSettings(), {}, "10.0.0.1:1")
