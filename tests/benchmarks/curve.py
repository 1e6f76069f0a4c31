"""What encryption costs: result frames of 0.8 MB over a connection with CURVE, beside one without. They take
turns; medians.

Left out: everything else of the bridge, of which `bridge` measures the whole, with CURVE; and a network.
"""

from __future__ import annotations

import os
import statistics
import threading
import time

import zmq

FRAMES, SIZE, ROUNDS = 81, 800_000, 9


def send_clip(curve: bool) -> tuple[float, float]:
    """Seconds, and seconds of processor, until a clip's frames have come."""
    context = zmq.Context()
    server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    server.linger = client.linger = 0
    if curve:
        server.curve_server = True
        client.curve_serverkey, server.curve_secretkey = zmq.curve_keypair()
        client.curve_publickey, client.curve_secretkey = zmq.curve_keypair()
    server.bind("tcp://127.0.0.1:*")
    client.connect(server.last_endpoint.rstrip(b"\0").decode())
    client.send(b"")
    identity, _ = server.recv_multipart()
    frame = os.urandom(SIZE)

    def send() -> None:
        for _ in range(FRAMES):
            server.send_multipart([identity, frame], copy=False)

    begun, busy = time.perf_counter(), time.process_time()
    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(FRAMES):
        client.recv(copy=False)
    taken = time.perf_counter() - begun, time.process_time() - busy
    sender.join()
    context.destroy()
    return taken


def main() -> None:
    taken = {True: [], False: []}
    for _ in range(ROUNDS):
        for curve in taken:
            taken[curve].append(send_clip(curve))
    for what, curve in (("with CURVE", True), ("without", False)):
        wall, busy = (statistics.median(times) for times in zip(*taken[curve]))
        print(f"{what:11} {1e3 * wall:6.0f} ms a clip, {1e3 * busy / FRAMES:5.2f} ms of processor a frame")
    ratio = statistics.median(with_[1] / without[1] for with_, without in zip(taken[True], taken[False]))
    print(f"processor time, ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
