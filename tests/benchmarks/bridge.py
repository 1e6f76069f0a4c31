"""81 result frames of 832 x 480 x 3 on their way from the worker through server, its store and the client to
files on disk, beside writing the same pictures in one process, in as many threads as the worker encodes in:
by OpenCV, as a script without a bridge would, and by the worker's own encoder. They take turns; medians.

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

import cv2

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


def with_opencv(images, folder: Path) -> float:
    """Seconds to write them as a script would."""
    folder.mkdir()
    begun = time.perf_counter()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as writers:
        names = [str(folder / f"take_{index + 1:04d}.png") for index in range(len(images))]
        list(writers.map(lambda name, image: cv2.imwrite(name, image[..., ::-1]), names, images))
    return time.perf_counter() - begun


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
    taken: tuple[list[float], ...] = ([], [], [])
    try:
        with Server() as server:
            client = client_module.BridgeClient(server.address, "benchmark")
            client.start()
            through_the_bridge(client, folder / "warm")
            for turn in range(ROUNDS):
                taken[0].append(through_the_bridge(client, folder / f"bridge-{turn}"))
                taken[1].append(with_opencv(images, folder / f"opencv-{turn}"))
                taken[2].append(directly(images, folder / f"direct-{turn}"))
            client.close()
        same = all(
            path.read_bytes() == (folder / "direct-0" / path.name).read_bytes()
            for path in (folder / "bridge-0").iterdir()
        )
        size = sum(path.stat().st_size for path in (folder / "bridge-0").iterdir())
    finally:
        shutil.rmtree(folder)
    bridge, opencv, direct = map(statistics.median, taken)
    print(
        f"{FRAMES} frames, {size / 1e6:.0f} MB, the same bytes in the same files: {'yes' if same else 'NO'}"
    )
    print(f"through worker, server, store and client {1e3 * bridge:7.0f} ms")
    print(f"written by OpenCV {1e3 * opencv:7.0f} ms   ratio {bridge / opencv:.2f} (to reach: at most 1)")
    print(f"by the worker's encoder {1e3 * direct:7.0f} ms   ratio {bridge / direct:.2f}")


if __name__ == "__main__":
    main()
