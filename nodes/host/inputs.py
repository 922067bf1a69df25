"""What every node asks of its inputs before it starts, taken from its own schema.

The host checks what is typed into a node, but not what comes from another one, nor NaN; ComfyUI 0.3.75 does not even
check the choices of a list. So each node's `execute` begins here, by `check_inputs` in `nodes/__init__.py`.
"""

from __future__ import annotations

import inspect
import math
from functools import wraps
from numbers import Integral, Real

from comfy_api.latest import io

from .memory import OutOfMemory, is_out_of_memory, release

MOST_LETTERS = 10_000  # of a text: more than any prompt has, and little enough for all work on it
SHOWN_LETTERS = 60  # of a value in a message


def check_inputs(node: type[io.ComfyNode]) -> None:
    """Makes the node's `execute` begin with these checks: the inputs' types, ranges and choices, then what the node's
    own `validate_inputs` says, now that values from other nodes are known. Numbers arrive in the schema's type. Where
    the memory runs out without explanation, one is given.

    `execute` then raises `ValueError` with one sentence that names the input, what it may be and what it is.
    """
    execute = node.execute.__func__
    signature, validated = inspect.signature(execute), _validated(node)
    rest = next((name for name, one in signature.parameters.items() if one.kind is one.VAR_KEYWORD), None)

    @wraps(execute)
    def checked(cls, *args, **kwargs):
        given = signature.bind(cls, *args, **kwargs).arguments
        del given["cls"]
        given |= given.pop(rest, {})
        schema = cls.define_schema()
        values = {**given, **checked_values(schema.inputs, given, validated)}
        if validated:
            complaint = cls.validate_inputs(**{name: values[name] for name in validated if name in values})
            if complaint is not True:
                raise ValueError(complaint)
        try:
            return execute(cls, **values)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            release(error)
            raise OutOfMemory(
                f"The memory was not enough for {schema.display_name}: give it fewer or smaller frames, or free memory."
            ) from error

    node.execute = classmethod(checked)


def checked_values(inputs: list, given: dict, named: frozenset[str] = frozenset()) -> dict:
    """The values of a schema's widgets among those `given`. Optional ones that are None are left out, so that the
    node's default counts. `named`: lists of choices that the node checks by itself, with a better sentence. Raises
    `ValueError`."""
    values = {}
    for one in inputs:
        if one.id not in given:
            continue
        value = given[one.id]
        if value is None and one.optional:
            given.pop(one.id)
            continue
        if isinstance(one, io.Combo.Input):
            if one.id not in named and value not in one.options:
                choices = ", ".join(map(str, one.options))
                raise ValueError(f"{one.id} is {shortened(value)}: choose one of {choices}.")
        elif isinstance(one, (io.Int.Input, io.Float.Input)):
            values[one.id] = _number(one, value)
        elif isinstance(one, io.Boolean.Input):
            if not isinstance(value, (bool, Integral)):
                raise ValueError(f"{one.id} is {shortened(value)}: it must be true or false.")
            values[one.id] = bool(value)
        elif isinstance(one, io.String.Input):
            _check_text(one.id, value)
    return values


def shortened(value) -> str:
    """A value for a message: as Python writes it, but not endless."""
    try:
        text = repr(value[: SHOWN_LETTERS + 1] if isinstance(value, (str, bytes)) else value)
    except ValueError:  # Python writes no whole numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN_LETTERS + 2 else f"{text[:SHOWN_LETTERS]}…"


def _number(one, value) -> int | float:
    """The value as the schema's type; whole numbers may come as floats."""
    whole = isinstance(one, io.Int.Input)
    right = isinstance(value, Real) and not isinstance(value, bool)
    right = right and (isinstance(value, Integral) or math.isfinite(value))
    right = right and (not whole or isinstance(value, Integral) or float(value).is_integer())
    if not right or (one.min is not None and value < one.min) or (one.max is not None and value > one.max):
        low, high = (limit if whole else f"{limit:g}" for limit in (one.min, one.max))
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{one.id} is {shortened(value)}: it must be {kind} from {low} to {high}.")
    return int(value) if whole else float(value)


def _check_text(name: str, value) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {shortened(value)}: it must be a text.")
    if len(value) > MOST_LETTERS:
        raise ValueError(
            f"{name} is a text of {len(value)} letters, {shortened(value)}: it must have at most {MOST_LETTERS}."
        )


def _validated(node) -> frozenset[str]:
    """The inputs that the node's own `validate_inputs` takes."""
    method = vars(node).get("validate_inputs")
    if method is None:
        return frozenset()
    return frozenset(inspect.signature(method.__func__).parameters) - {"cls"}

