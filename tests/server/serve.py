"""`python -m tests.server.serve SETTINGS`: the server with engines and limits that a test gives as JSON. It
ends when its standard input closes, so that none is left behind by a test that was killed.

With `turns`, a file, it writes there at its end how long the loop's longest turn took, in seconds of the
clock and of the processor.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from unittest import mock

from inference_server.broker.broker import Broker
from inference_server.broker.logs import log_to_stderr
from inference_server.broker.settings import Settings
from inference_server.cli import serve as command


class Timed(Broker):
    """Measures what it does between two waits."""

    longest = longest_of_processor = 0.0

    def _work(self, ready, now):
        wall, processor = time.perf_counter(), time.thread_time()
        super()._work(ready, now)
        self.longest = max(self.longest, time.perf_counter() - wall)
        self.longest_of_processor = max(self.longest_of_processor, time.thread_time() - processor)

    def _close(self):
        super()._close()
        Path(turns).write_text(json.dumps([self.longest, self.longest_of_processor]))


if __name__ == "__main__":
    log_to_stderr("%(levelname)s %(message)s")
    order = json.loads(sys.argv[1])
    finish, turns = order.pop("finish", False), order.pop("turns", None)
    with mock.patch.object(command, "Broker", Timed if turns else Broker):
        sys.exit(command.serve(Settings(**order), exit_with_stdin=True, finish=finish))
