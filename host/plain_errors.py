"""Messages of the pack's nodes as the host can take them: a name that is no Unicode in one would end its worker."""

from __future__ import annotations

import functools
import inspect

from comfy_api.latest import io

from .plain_text import plain

METHODS = ("execute", "validate_inputs", "fingerprint_inputs")  # what the host calls


def with_plain_errors(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node class itself, with all that its methods raise or refuse made plain text."""
    for name in METHODS:
        if name in vars(node):
            setattr(node, name, classmethod(_guarded(vars(node)[name].__func__)))
    return node


def _guarded(method):
    @functools.wraps(method)
    def guarded(*args, **kwargs):
        try:
            result = method(*args, **kwargs)
        except Exception as error:
            _make_plain(error)
            raise
        return plain(result) if method.__name__ == "validate_inputs" and isinstance(result, str) else result

    guarded.__signature__ = inspect.signature(method)  # the host asks which inputs are to be validated
    return guarded


def _make_plain(error: BaseException | None) -> None:
    """Its message and those of what it came from, which the host prints as well; its kind stays."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.args = tuple(plain(one) if isinstance(one, str) else one for one in error.args)
        error = error.__cause__ or error.__context__
