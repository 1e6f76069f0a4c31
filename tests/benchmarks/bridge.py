"""81 result frames of 832 x 480 x 3 on their way from the worker through server and client to files on
disk, beside encoding (in as many threads as the worker's) and writing the same pictures in one process. They
take turns; medians.

Left out: a network between the two: both run on this machine. Frames are ready-made, so the engine costs
nothing.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inference_server.worker.pictures import encode_picture

from ._footage import FRAMES, Server, install, make_request, module, pictures

ROUNDS = 9


def through_the_bridge(client, folder: Path) -> float:
    """Seconds from the request's submission until every frame is a file."""
    folder.mkdir()
    request = make_request()
    writer = module("takes.writer").TakeWriter(folder, "take", FRAMES)
    begun = time.perf_counter()
    client.submit(request, writer)
    while not any(type(event).__name__ in ("Done", "Failed") for event in client.poll()):
        time.sleep(0.001)
    seconds = time.perf_counter() - begun
    assert writer.written == FRAMES
    return seconds


def directly(images, folder: Path) -> float:
    """Seconds to encode and write them here, with the same encoder and the same writer."""
    folder.mkdir()
    writer = module("takes.writer").TakeWriter(folder, "take", FRAMES)
    begun = time.perf_counter()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as encoders:
        for data in encoders.map(lambda image: encode_picture(image, "png"), images):
            writer.write(data)
    return time.perf_counter() - begun


def main() -> None:
    install()
    images = pictures()
    client_module = module("connection.client")
    folder = Path(tempfile.mkdtemp(prefix="bridge-"))
    taken: tuple[list[float], list[float]] = ([], [])
    try:
        with Server() as server:
            client = client_module.BridgeClient(server.address, "benchmark")
            client.start()
            through_the_bridge(client, folder / "warm")
            for turn in range(ROUNDS):
                taken[0].append(through_the_bridge(client, folder / f"bridge-{turn}"))
                taken[1].append(directly(images, folder / f"direct-{turn}"))
            client.close()
        same = all(
            path.read_bytes() == (folder / "direct-0" / path.name).read_bytes()
            for path in (folder / "bridge-0").iterdir()
        )
        size = sum(path.stat().st_size for path in (folder / "bridge-0").iterdir())
    finally:
        shutil.rmtree(folder)
    bridge, direct = map(statistics.median, taken)
    print(
        f"{FRAMES} frames, {size / 1e6:.0f} MB, the same bytes in the same files: {'yes' if same else 'NO'}"
    )
    print(f"through worker, server and client {1e3 * bridge:7.0f} ms   directly {1e3 * direct:7.0f} ms")
    print(f"ratio {bridge / direct:.2f} (to reach: at most 1.5)")


if __name__ == "__main__":
    main()
