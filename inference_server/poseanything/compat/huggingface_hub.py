"""The hub client's transport and checksums. Checked with huggingface_hub 2.4."""

from __future__ import annotations

from huggingface_hub.file_download import http_get
from huggingface_hub.utils.sha import git_hash

# http_get: a download that goes on where it stopped. Watch `resume_size`, and that the stream stays open.
# git_hash: by which small files are checked (tests/model/test_weights.py).
__all__ = ["git_hash", "http_get"]
