"""`python -m tests.server.serve SETTINGS`: the server with engines and limits that a test gives as JSON."""

from __future__ import annotations

import json
import sys

from inference_server.broker.logs import log_to_stderr
from inference_server.broker.settings import Settings
from inference_server.cli.serve import serve

if __name__ == "__main__":
    log_to_stderr("%(levelname)s %(message)s")
    order = json.loads(sys.argv[1])
    finish = order.pop("finish", False)
    sys.exit(serve(Settings(**order), exit_with_stdin=finish, finish=finish))
