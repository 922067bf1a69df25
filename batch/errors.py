"""What stops a batch run. Standard library only."""


class BatchError(RuntimeError):
    """The run cannot start or go on; the message says why and what to do."""
