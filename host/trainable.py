"""What one-shot tuning trains of an inflated MODEL, and what it has become at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F

from ..ei2.snapshot_file import check_fits
from ..ei2.temporal import STAM
from ..ei2.tensor_file import part
from ..ei2.tuning import TrainingState
from .inflation import QUERIES, LayerHook, require_inflation
from .temporal_stack import TemporalStack, effective_state
from .unet import require_unet, transformer_blocks


class Trainable:
    """Float32 copies of the temporal modules, normalized while they train, and additions to the q projections, zero at
    first; both on the MODEL's device. `start`: where they stood in an earlier run."""

    def __init__(self, model, start: TrainingState | None = None):
        self.inflation, unet, device = require_inflation(model), require_unet(model), model.load_device
        blocks, settings = transformer_blocks(unet), self.inflation.settings
        self.stack = TemporalStack.build(blocks, settings, torch.nn.Linear)
        self.stack.load_state_dict({name: weight.float() for name, weight in self.inflation.stack.state_dict().items()})
        self.stack.to(device).train()
        for module in self.stack.values():
            if isinstance(module, STAM):
                module.restrict(settings.normalization, settings.normalization_scope)
        layers = {f"{block.path}.{name}": block.module.get_submodule(name) for block in blocks for name in QUERIES}
        zeros = {path: torch.zeros(layer.weight.shape, device=device) for path, layer in layers.items()}
        self.queries = {path: torch.nn.Parameter(weight) for path, weight in zeros.items()}
        if start:
            if start.file:
                check_fits(start, self._state(), self.parameters())
            self._restore(start.weights)

    def parameters(self) -> list[torch.nn.Parameter]:
        return [*self.stack.parameters(), *self.queries.values()]

    def temporal(self) -> dict[str, torch.Tensor]:
        """The temporal modules' effective weights, as a `TuneResult` has them."""
        return {name: weight.cpu() for name, weight in effective_state(self.stack).items()}

    def query(self) -> dict[str, torch.Tensor]:
        """What is added to the q projections, with what earlier tunings added, as a `TuneResult` has it."""
        earlier = self.inflation.tune.query if self.inflation.tune else {}
        deltas = {f"{path}.weight": delta.detach().cpu() for path, delta in self.queries.items()}
        return {name: delta + earlier.get(name, 0) for name, delta in deltas.items()}

    def with_weights(self, state: TrainingState) -> TrainingState:
        """The state with all that is trained, as it goes on from."""
        return replace(state, weights=self._state())

    def _state(self) -> dict[str, torch.Tensor]:
        weights = {f"temporal.{name}": weight for name, weight in self.stack.state_dict().items()}
        return weights | {f"query.{name}": delta.detach() for name, delta in self.queries.items()}

    def _restore(self, weights: dict[str, torch.Tensor]) -> None:
        self.stack.load_state_dict(part(weights, "temporal."))
        with torch.no_grad():
            for path, weight in part(weights, "query.").items():
                self.queries[path].copy_(weight)

    def hooks(self, unet) -> list[tuple[torch.nn.Module, LayerHook]]:
        """What adds the learned to the q projections, by layer of the UNet."""

        def hook(layer, delta):
            add = lambda _, inputs, output: output + F.linear(inputs[0], delta.to(inputs[0].dtype))
            return [layer.register_forward_hook(add)]

        layers = [(unet.get_submodule(path), delta) for path, delta in self.queries.items()]
        return [(layer, partial(hook, layer, delta)) for layer, delta in layers]

    @contextmanager
    def without_trace(self) -> Iterator[None]:
        """Calls inside leave the training as it is: no power iteration, whose singular vectors are part of it."""
        self.stack.eval()
        try:
            yield
        finally:
            self.stack.train()
