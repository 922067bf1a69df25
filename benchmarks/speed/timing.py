"""How time, memory and arithmetic are measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.machine import held_bytes, peak_bytes, start_peak

# Dense bf16 matrix products with float32 sums, TFLOP/s, from the manufacturers' data sheets. The first name contained
# in the device's name counts; other devices are compared with their own measured products.
DATASHEET = {"H200": 989.4, "H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.4, "A100": 311.8, "L40S": 362.0}
DATASHEET |= {"RTX 4090": 165.2, "RTX 3090": 71.0}
SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
LONG = {name: dtype for dtype, name in SHORT.items()}


class Marks:
    """The moments at which steps ended. It is called after each step, and times those after call `first` up to call
    `last`. Only at these two does it wait for a GPU, so work queued ahead counts as in real use. With one thread on a
    CPU it measures processor time, which other work on the machine does not affect."""

    def __init__(self, on_gpu: bool, first: int, last: int):
        self.on_gpu, self.first, self.last = on_gpu, first, last
        self.calls, self.times = 0, []
        self.clock = time.perf_counter if on_gpu or torch.get_num_threads() > 1 else time.process_time

    def __call__(self, *_) -> None:
        self.calls += 1
        if self.calls in (self.first, self.last) or (self.first < self.calls < self.last and not self.on_gpu):
            if self.on_gpu:
                torch.cuda.synchronize()
            self.times.append(self.clock())

    def seconds(self) -> list[float]:
        """The seconds of each timed step; on a GPU their mean."""
        steps = self.last - self.first
        if self.on_gpu:
            return [(self.times[-1] - self.times[0]) / steps] * steps if steps else []
        return [end - start for start, end in zip(self.times, self.times[1:])]


@dataclass
class Contender:
    """Something that is timed. `run(steps)` does one step more than asked and returns the seconds of the others;
    `held()`: bytes it needs that exist before it runs, such as weights in main memory; `leave()` frees what it keeps on
    the GPU; `alone`: all memory there counts, not only what it adds."""

    name: str
    run: Callable[[int], list[float]]
    held: Callable[[], int] = lambda: 0
    leave: Callable[[], None] = lambda: None
    alone: bool = False
    seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    failure: str = ""

    def turn(self, share: float, most: int, on_gpu: bool) -> None:
        """Steps for about `share` seconds: at least one, at most `most`."""
        steps = max(1, min(most, round(share / self.seconds[-1]))) if self.seconds else 1
        self.leave()
        start_peak(on_gpu)
        before = 0 if self.alone else held_bytes(on_gpu)
        try:
            self.seconds += self.run(steps)
            self.peaks.append(peak_bytes(on_gpu) - before + self.held())
        except (MemoryError, torch.OutOfMemoryError):
            self.failure = "out of memory"
        except ValueError as error:  # refused by the pack
            self.failure = str(error).partition(":")[0]
        self.leave()


def race(contenders: list[Contender], rounds: int, share: float, most: int, on_gpu: bool) -> None:
    """Times the contenders in turn, round by round, so that other work on the machine affects all of them. Those that
    fail drop out. See `Contender.turn`."""
    for _ in range(rounds):
        for contender in contenders:
            if not contender.failure:
                contender.turn(share, most, on_gpu)


def summary(contender: Contender) -> dict:
    """The measured fields of a row. The smallest peak counts, because other memory of the process only adds to it."""
    seconds, peaks = contender.seconds, contender.peaks
    if contender.failure or not seconds:
        return {"seconds": None, "peak_bytes": None, "steps_timed": 0, "note": contender.failure}
    return {"seconds": median(seconds), "peak_bytes": min(peaks), "steps_timed": len(seconds)}


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products, convolutions and attentions in `work()`; a multiply-add counts
    as two."""
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    mapping = {
        forward: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        backward: lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v),
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return counter.get_total_flops()


def arithmetic(count: Callable[[int], int]) -> np.poly1d:
    """The floating-point operations of a step by its number of frames.

    `count(frames)`: those of one step without checkpointing. It is called with 2, 3 and 4 frames, which is quick. All
    parts of a step grow as 1, f or f², so the parabola through three counts is exact.
    """
    frames = (2, 3, 4)
    return np.poly1d(np.polyfit(frames, [count(number) for number in frames], 2))


def measured_peak(dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    """TFLOP/s of large square matrix products: the fastest of those that fit into `seconds`, at least one."""
    on_gpu = device.type == "cuda"
    size, repeat = (8192, 10) if on_gpu else (2048, 1)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    fastest, begin = float("inf"), time.perf_counter()
    while fastest == float("inf") or time.perf_counter() - begin < seconds:
        marks = Marks(on_gpu, 1, repeat + 1)
        for _ in range(repeat + 1):
            a @ b
            marks()
        fastest = min(fastest, *marks.seconds())
    return 2 * size**3 / fastest / 1e12


def datasheet(device: torch.device) -> float | None:
    """The GPU's dense bf16 TFLOP/s, if its name is known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in DATASHEET.items() if part in name), None)
