"""What keeps a data set from being read or written."""


class DatasetError(Exception):
    """Its text is one sentence that says what is wrong and what to do."""
