"""The inference server: takes generation requests over ZeroMQ, runs engines, streams frames back.

`broker` is the process that clients talk to; it queues jobs and never imports an engine. `worker` is the
process that runs them, so that whatever happens to an engine ends one job and not the server. `engines` holds
the engines by name.
"""

from shared import __version__ as __version__

NODE_LOST = 75
"""The exit code of a worker process whose engine ran on another machine, which is lost."""
