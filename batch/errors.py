"""The error that stops a batch run. Standard library only."""


class BatchError(RuntimeError):
    """The run cannot start or continue; the message says why and what to do."""
