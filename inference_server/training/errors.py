"""What ends a training run."""


class TrainingError(Exception):
    """A run can't begin or go on. Its text is one sentence that says what is wrong and what to do."""
