"""The process that clients talk to: front end, queue, and the keeper of the worker process."""

from shared.sentences import SentenceError


class ServerError(SentenceError):
    """The server can't run. Its text is one sentence that says what is wrong and what to do."""
