"""Wraps every node's methods: checks inputs before the work starts, and makes messages safe for the host.

The host checks values typed into a node, but not values from other nodes, and not NaN; ComfyUI 0.3.75 does not check
the choices of a list either. A name that is not valid Unicode, in a message, would end its worker.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from numbers import Integral, Real

import torch
from comfy_api.latest import io

from ..ei2.inverted_clip import Inversion
from ..ei2.prompt_control import Control
from ..ei2.tune_file import TuneResult
from ..ei2.user_text import check_choice, short
from .memory import out_of_memory_says
from .ui import plain

MOST_LETTERS = 10_000  # of a text: more than any prompt has, and few enough for all processing


def _is_conditioning(value) -> bool:
    pairs = (list, tuple)
    return isinstance(value, pairs) and all(
        isinstance(entry, pairs)
        and len(entry) == 2
        and isinstance(entry[0], torch.Tensor)
        and isinstance(entry[1], dict)
        for entry in value
    )


# Values of links: the host accepts a number or a text instead, if another tool writes one.
CONNECTED: dict[str, Callable[[object], bool]] = {
    "MODEL": lambda value: hasattr(value, "get_model_object"),
    "CLIP": lambda value: value is None or hasattr(value, "tokenize"),  # None: the file has none; reported elsewhere
    "VAE": lambda value: hasattr(value, "decode"),
    "CLIP_VISION": lambda value: hasattr(value, "encode_image"),
    "LATENT": lambda value: isinstance(value, dict) and hasattr(value.get("samples"), "shape"),
    "CONDITIONING": _is_conditioning,
    "IMAGE": lambda value: isinstance(value, torch.Tensor),
    "MASK": lambda value: isinstance(value, torch.Tensor),
    "EI2_TUNE": lambda value: isinstance(value, TuneResult),
    "EI2_INVERSION": lambda value: isinstance(value, Inversion),
    "EI2_CONTROL": lambda value: isinstance(value, Control),
}


def guarded(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node class itself, with the methods that the host calls wrapped:

    `execute` first checks the inputs' types, ranges and choices by the schema, then runs the node's own
    `validate_inputs`, now that values from other nodes are known. It raises `ValueError` with one sentence:
    the input, its value and the valid values. Numbers arrive in the schema's type. Unexplained
    out-of-memory errors get an explanation.

    `validate_inputs` raises `ValueError` for values it refuses, and returns nothing; the host gets the sentence. Values
    from other nodes are None there.
    """
    methods = vars(node)
    if "validate_inputs" in methods:
        node.validate_inputs = classmethod(_answering(methods["validate_inputs"].__func__))
    if "fingerprint_inputs" in methods:
        node.fingerprint_inputs = classmethod(_plain(methods["fingerprint_inputs"].__func__))
    node.execute = classmethod(_plain(_checked(methods["execute"].__func__, _validated(node))))
    return node


def _checked(execute: Callable, validated: frozenset[str]) -> Callable:
    signature = inspect.signature(execute)
    rest = next((name for name, kind in signature.parameters.items() if kind.kind is kind.VAR_KEYWORD), None)

    @wraps(execute)
    def checked(cls, *args, **kwargs):
        values = signature.bind(cls, *args, **kwargs).arguments
        del values["cls"]
        values |= values.pop(rest, {})
        schema = cls.define_schema()
        widgets = checked_values(schema.inputs, values, validated)
        values = {**values, **widgets}
        if validated:
            answer = cls.validate_inputs(**{name: values[name] for name in validated if name in values})
            if answer is not True:
                raise ValueError(answer)
        check_links(schema.inputs, values)
        with out_of_memory_says(f"{schema.display_name}: give it fewer or smaller frames, or free memory."):
            return execute(cls, **values)

    return checked


def _answering(validate: Callable) -> Callable:
    """True, or the sentence that `validate` raised, as the host expects. An input that the graph lacks is None; the
    host then refuses the graph itself."""
    signature = inspect.signature(validate)
    lacking = {p.name: None for p in signature.parameters.values() if p.default is p.empty}

    @wraps(validate)
    def answer(*args, **kwargs) -> bool | str:
        try:
            validate(**lacking | signature.bind_partial(*args, **kwargs).arguments)
        except ValueError as error:
            return plain(str(error))
        return True

    return _plain(answer)


def _plain(method: Callable) -> Callable:
    """The method, with safe messages in all errors it raises."""

    @wraps(method)
    def guarded(*args, **kwargs):
        try:
            return method(*args, **kwargs)
        except Exception as error:
            _make_plain(error)
            raise

    guarded.__signature__ = inspect.signature(method)  # the host reads which inputs to validate
    return guarded


def _make_plain(error: BaseException | None) -> None:
    """Makes an error's message safe, and those of its causes, which the host prints too; its type stays."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.args = tuple(plain(part) if isinstance(part, str) else part for part in error.args)
        error = error.__cause__ or error.__context__


def _validated(node: type[io.ComfyNode]) -> frozenset[str]:
    """The inputs that the node's own `validate_inputs` takes."""
    method = vars(node).get("validate_inputs")
    return frozenset(inspect.signature(method.__func__).parameters) - {"cls"} if method else frozenset()


def checked_values(inputs: list, values: dict, named: frozenset[str] = frozenset()) -> dict:
    """The values of a schema's widgets among `values`. Optional ones that are None are removed, from
    `values` too, so that the node's default applies. `named`: lists of choices that the node checks itself,
    with a better message. Raises `ValueError`."""
    checked = {}
    for widget in inputs:
        if widget.id not in values:
            continue
        value = values[widget.id]
        if value is None and widget.optional:
            values.pop(widget.id)
        elif isinstance(widget, io.Combo.Input):
            if widget.id not in named:
                check_choice(widget.id, value, widget.options)
        elif isinstance(widget, (io.Int.Input, io.Float.Input)):
            checked[widget.id] = _number(widget, value)
        elif isinstance(widget, io.Boolean.Input):
            if not isinstance(value, (bool, Integral)):
                raise ValueError(f"{widget.id} is {short(value)}: it must be true or false.")
            checked[widget.id] = bool(value)
        elif isinstance(widget, io.String.Input):
            _check_text(widget.id, value)
    return checked


def check_links(inputs: list, values: dict) -> None:
    """Raises `ValueError` if a link's value does not have the schema's type."""
    for link in inputs:
        kind = link.get_io_type()
        if link.id in values and kind in CONNECTED and not CONNECTED[kind](values[link.id]):
            raise ValueError(f"{link.id} is {short(values[link.id])}: connect an output of type {kind}.")


def _number(widget, value) -> int | float:
    """The value in the schema's type; integers may arrive as floats."""
    whole = isinstance(widget, io.Int.Input)
    right = isinstance(value, Real) and not isinstance(value, bool)
    right = right and (isinstance(value, Integral) or math.isfinite(value))
    right = right and (not whole or isinstance(value, Integral) or float(value).is_integer())
    if not right or (widget.min is not None and value < widget.min) or (widget.max is not None and value > widget.max):
        low, high = (limit if whole else f"{limit:g}" for limit in (widget.min, widget.max))
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{widget.id} is {short(value)}: it must be {kind} from {low} to {high}.")
    return int(value) if whole else float(value)


def _check_text(name: str, value) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {short(value)}: it must be text.")
    if len(value) > MOST_LETTERS:
        raise ValueError(
            f"{name} is a text of {len(value)} characters, {short(value)}: it must have at most {MOST_LETTERS}."
        )
