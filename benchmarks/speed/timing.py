"""How time, memory and arithmetic are measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.machine import held_bytes, peak_bytes, start_peak

# Dense bf16 matrix products with float32 sums, TFLOP/s, from the makers' data sheets; the first name that is part of
# the device's counts. Others are compared with their own measured products.
DATASHEET = {
    "H200": 989.4, "H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.4, "A100": 311.8, "L40S": 362.0,
    "RTX 4090": 165.2, "RTX 3090": 71.0,
}  # fmt: skip
SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
LONG = {name: dtype for dtype, name in SHORT.items()}


def synchronize(on_gpu: bool) -> None:
    """Waits until the GPU has done what it was told."""
    if on_gpu:
        torch.cuda.synchronize()


class Marks:
    """The moments steps ended, to be called behind each one; timed are those after call `first` up to call `last`. A
    GPU is waited for at these two alone, so that what is told to it ahead of time counts as in real work."""

    def __init__(self, on_gpu: bool, first: int, last: int):
        self.on_gpu, self.first, self.last = on_gpu, first, last
        self.calls, self.times = 0, []

    def __call__(self, *_) -> None:
        self.calls += 1
        if self.calls in (self.first, self.last) or (self.first < self.calls < self.last and not self.on_gpu):
            synchronize(self.on_gpu)
            self.times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of every timed step; on a GPU all have their mean."""
        steps = self.last - self.first
        if self.on_gpu:
            return [(self.times[-1] - self.times[0]) / steps] * steps if steps else []
        return [end - start for start, end in zip(self.times, self.times[1:])]


@dataclass
class Contender:
    """Something that is timed. `run(steps)` does one step more than asked and returns the others' seconds; `held`: the
    bytes of what it needs that are there before it runs, such as weights in main memory; `leave()` puts away what
    anybody keeps on the GPU; `alone`: then all there counts as its memory, not only what it adds."""

    name: str
    run: Callable[[int], list[float]]
    held: Callable[[], int] = lambda: 0
    leave: Callable[[], None] = lambda: None
    alone: bool = False
    seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    failure: str = ""


def race(contenders: list[Contender], rounds: int, share: float, most: int, on_gpu: bool) -> None:
    """Times the contenders in turn, round by round, so that what else the machine does hits all of them. In a round
    each gets about `share` seconds, one step at least and `most` at most. One that cannot go on is out: for want of
    memory, or for what the pack says."""
    for _ in range(rounds):
        for one in contenders:
            if one.failure:
                continue
            steps = max(1, min(most, round(share / one.seconds[-1]))) if one.seconds else 1
            one.leave()
            start_peak(on_gpu)
            before = 0 if one.alone else held_bytes(on_gpu)
            try:
                one.seconds += one.run(steps)
                one.peaks.append(peak_bytes(on_gpu) - before + one.held())
            except (MemoryError, torch.OutOfMemoryError):
                one.failure = "out of memory"
            except ValueError as error:
                one.failure = str(error).partition(":")[0]
            one.leave()


def summary(one: Contender) -> dict:
    """The measured fields of a row. Of the peaks the smallest: what a process holds beside only adds to it."""
    if one.failure or not one.seconds:
        return {"seconds": None, "peak_bytes": None, "steps_timed": 0, "note": one.failure}
    return {"seconds": median(one.seconds), "peak_bytes": min(one.peaks), "steps_timed": len(one.seconds)}


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products, convolutions and attentions in `work()`; two per
    multiply-add."""
    cpu = torch.ops.aten
    mapping = {
        cpu._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        cpu._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v)
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return counter.get_total_flops()


class Arithmetic:
    """The arithmetic of a step at any number of frames, without what is recomputed.

    `step(frames)` does one step, without checkpointing. It is counted at 2, 3 and 4 frames, where it is quick: every
    part of a step grows as 1, f or f², so that the parabola through three counts is exact.
    """

    COUNTED = (2, 3, 4)

    def __init__(self, step: Callable[[int], object]):
        self.counts = [count_flops(lambda: step(frames)) for frames in self.COUNTED]

    def at(self, frames: int) -> float:
        total = 0.0
        for i, count in zip(self.COUNTED, self.counts):  # Lagrange's polynomial
            others = [j for j in self.COUNTED if j != i]
            total += count * prod((frames - j) / (i - j) for j in others)
        return total


def measured_peak(dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    """TFLOP/s of large square matrix products, the fastest of as many as fit into `seconds`."""
    on_gpu = device.type == "cuda"
    size = 8192 if on_gpu else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    repeat = 10 if on_gpu else 1
    fastest, begin = float("inf"), time.perf_counter()
    while fastest == float("inf") or time.perf_counter() - begin < seconds:
        marks = Marks(on_gpu, 1, repeat + 1)
        for _ in range(repeat + 1):
            a @ b
            marks()
        fastest = min(fastest, min(marks.seconds()))
    return 2 * size**3 / fastest / 1e12


def datasheet(device: torch.device) -> float | None:
    """The GPU's dense bf16 TFLOP/s, where its name is known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in DATASHEET.items() if part in name), None)
