"""What every node asks of its inputs before it starts, taken from its own schema.

The host checks what is typed into a node, but not what comes from another one, nor NaN; ComfyUI 0.3.75 does not even
check the choices of a list. So each node's `execute` begins here, by `check_inputs` in `nodes/__init__.py`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from numbers import Integral, Real

import torch
from comfy_api.latest import io

from ...ei2.tune_file import TuneResult
from ...ei2.user_text import short
from ..control import Control
from ..inversion import Inversion
from .memory import OutOfMemory, is_out_of_memory, release

MOST_LETTERS = 10_000  # of a text: more than any prompt has, and little enough for all work on it


def _is_conditioning(value) -> bool:
    entry = lambda one: len(one) == 2 and isinstance(one[0], torch.Tensor) and isinstance(one[1], dict)
    return isinstance(value, (list, tuple)) and all(isinstance(one, (list, tuple)) and entry(one) for one in value)


# What comes over a link: the host takes a number or a text in its place, where someone else's tool writes one.
CONNECTED: dict[str, Callable[[object], bool]] = {
    "MODEL": lambda value: hasattr(value, "get_model_object"),
    "CLIP": lambda value: value is None or hasattr(value, "tokenize"),  # None: of a file without one, said elsewhere
    "CLIP_VISION": lambda value: hasattr(value, "encode_image"),
    "LATENT": lambda value: isinstance(value, dict) and hasattr(value.get("samples"), "shape"),
    "CONDITIONING": _is_conditioning,
    "IMAGE": lambda value: isinstance(value, torch.Tensor),
    "MASK": lambda value: isinstance(value, torch.Tensor),
    "EI2_TUNE": lambda value: isinstance(value, TuneResult),
    "EI2_INVERSION": lambda value: isinstance(value, Inversion),
    "EI2_CONTROL": lambda value: isinstance(value, Control),
}


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
        checked = checked_values(schema.inputs, given, validated)
        values = {**given, **checked}
        if validated:
            complaint = cls.validate_inputs(**{name: values[name] for name in validated if name in values})
            if complaint is not True:
                raise ValueError(complaint)
        check_links(schema.inputs, values)
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
                raise ValueError(f"{one.id} is {short(value)}: choose one of {choices}.")
        elif isinstance(one, (io.Int.Input, io.Float.Input)):
            values[one.id] = _number(one, value)
        elif isinstance(one, io.Boolean.Input):
            if not isinstance(value, (bool, Integral)):
                raise ValueError(f"{one.id} is {short(value)}: it must be true or false.")
            values[one.id] = bool(value)
        elif isinstance(one, io.String.Input):
            _check_text(one.id, value)
    return values


def check_links(inputs: list, given: dict) -> None:
    """Raises `ValueError` where something else is given than what the schema's links carry."""
    for one in inputs:
        kind = one.get_io_type()
        if one.id in given and kind in CONNECTED and not CONNECTED[kind](given[one.id]):
            raise ValueError(f"{one.id} is {short(given[one.id])}: connect an output of the kind {kind}.")


def _number(one, value) -> int | float:
    """The value as the schema's type; whole numbers may come as floats."""
    whole = isinstance(one, io.Int.Input)
    right = isinstance(value, Real) and not isinstance(value, bool)
    right = right and (isinstance(value, Integral) or math.isfinite(value))
    right = right and (not whole or isinstance(value, Integral) or float(value).is_integer())
    if not right or (one.min is not None and value < one.min) or (one.max is not None and value > one.max):
        low, high = (limit if whole else f"{limit:g}" for limit in (one.min, one.max))
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{one.id} is {short(value)}: it must be {kind} from {low} to {high}.")
    return int(value) if whole else float(value)


def _check_text(name: str, value) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {short(value)}: it must be a text.")
    if len(value) > MOST_LETTERS:
        raise ValueError(
            f"{name} is a text of {len(value)} letters, {short(value)}: it must have at most {MOST_LETTERS}."
        )


def _validated(node) -> frozenset[str]:
    """The inputs that the node's own `validate_inputs` takes."""
    method = vars(node).get("validate_inputs")
    if method is None:
        return frozenset()
    return frozenset(inspect.signature(method.__func__).parameters) - {"cls"}
