"""Several workers: how much faster many clips are made, and what a worker costs a job.

Throughput of small drafts at 1, 2 and 4 worker processes, against one; and the time that a job of one
ready-made frame takes by way of a Ray actor on this machine, against a process of the server's own.

    python build.py bench workers

Left out: cards, other machines, and more workers than this machine has cores to run them on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from shared.messages import Done, Status, StatusRequest
from tests.server.client import Client, ServerProcess, request

ENGINES = {"plain": "tests.server.engines:Plain", "draft": "inference_server.engines.draft:DraftEngine"}


def throughput(client: Client, clips: int, prefix: str) -> float:
    """Clips a second."""
    asked = [
        request(f"{prefix} {number}", "draft", num_frames=24, width=320, height=240)
        for number in range(clips)
    ]
    began = time.perf_counter()
    for each in asked:
        client.send(each)
    while len(client.of(Done)) < clips:
        client.receive()
    seconds = time.perf_counter() - began
    client.events.clear()
    return clips / seconds


def latency(client: Client, jobs: int) -> float:
    """Median seconds from a request to its end, of a job that is nothing by itself."""
    times = []
    for number in range(jobs + 3):
        began = time.perf_counter()
        client.send(request(f"job {number}", "plain", num_frames=1))
        client.ending(f"job {number}")
        times.append(time.perf_counter() - began)
    return statistics.median(times[3:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=30, help="default: %(default)s")
    asked = parser.parse_args()
    rates = {}
    for workers in (1, 2, 4):
        with ServerProcess(ENGINES, workers=workers) as server, server.client() as client:
            while server_idle(client) < workers:
                time.sleep(0.05)
            throughput(client, workers, "warm")
            rates[workers] = throughput(client, asked.clips, "clip")
        print(
            f"{workers} workers: {rates[workers]:6.2f} drafts/s, {rates[workers] / rates[1]:.2f}x one",
            flush=True,
        )
    print(f"({os.cpu_count()} cores)")
    with ServerProcess(ENGINES) as server, server.client() as client:
        own = latency(client, asked.jobs)
    print(f"a job by a process of the server's own: {1000 * own:6.1f} ms")
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        print("Ray is not installed; its overhead was not measured.")
        return
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        with ServerProcess(ENGINES, ray=cluster.address) as server, server.client() as client:
            far = latency(client, asked.jobs)
    finally:
        cluster.shutdown()
    print(f"a job by a Ray actor:                   {1000 * far:6.1f} ms, {1000 * (far - own):+.1f} ms")


def server_idle(client: Client) -> int:
    client.send(StatusRequest())
    return sum(worker.state == "idle" for worker in client.wait_for(Status).workers)


if __name__ == "__main__":
    main()
