"""Recognizes errors that mean that memory ran out."""

from __future__ import annotations

import torch

# Only CUDA has its own exception. These are the messages of other allocators: torch's for main memory (Linux, Windows),
# MPS, C++, the libraries for matrix products and convolutions, and the host's attention.
EXHAUSTED = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "could not create a memory object",
    "could not create a primitive",
    "ALLOC_FAILED",
)


def ran_out(error: Exception) -> bool:
    """Whether this error means that memory ran out."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return any(words.lower() in str(error).lower() for words in EXHAUSTED)
