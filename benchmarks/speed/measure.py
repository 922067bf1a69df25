"""The measurements: places in turn, every contender at each, and the rows they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from . import attention
from .attention import Attentions
from .steps import LITERAL, WHAT, Place, Steps, Way
from .timing import LONG, Arithmetic, datasheet, measured_peak, race, summary


@dataclass(frozen=True)
class Plan:
    """What is measured. `base`: the place where every way is compared; from there on time and memory are followed over
    `frames` and, with `few` frames, over `sizes` (pixels of a square's side). `attention_frames`: of the attentions
    alone. `rounds` and `share` (seconds) as in `race`: more rounds at the base."""

    base: Place
    frames: tuple[int, ...]
    sizes: tuple[int, ...]
    few: int
    attention_frames: tuple[int, ...] = (8, 16, 24, 32, 64)
    rounds: tuple[int, int] = (5, 3)
    share: float = 1.0
    most: int = 10
    longest: float = 20.0  # seconds; an attention that is expected to take longer is left out

    def places(self) -> list[Place]:
        """All but the base, no place twice; what matters most comes first."""
        size = self.base.width
        found = [Place(frames, size, self.base.height) for frames in self.frames]
        found += [Place(self.few, side, side) for side in self.sizes]
        return [place for place in dict.fromkeys(found) if place != self.base]


class Measurement:
    """Measures on one model; rows are dictionaries. `peaks`: TFLOP/s of large matrix products, by dtype."""

    def __init__(self, steps: Steps, plan: Plan):
        self.steps, self.plan, self.subject = steps, plan, steps.subject
        self.arithmetic: dict[tuple, Arithmetic] = {}
        self.peaks: dict[str, float] = {}

    def work(self, only: str | None) -> Iterator[Callable[[], list[dict]]]:
        """The measurements, each of which returns its rows. `only`: tune, invert, edit or attention."""
        plan = self.plan
        yield self.matrix_products
        for what in WHAT:
            if only in (None, what):
                yield lambda what=what: self.step(what, plan.base, full=True)
        if only in (None, "attention"):
            for gradient in (False, True) if self.subject.on_gpu else (False,):
                for frames in plan.attention_frames:
                    place = replace(plan.base, frames=frames)
                    yield lambda place=place, gradient=gradient: self.attentions(place, gradient)
        for what in WHAT:
            for place in plan.places():
                if only in (None, what):
                    yield lambda what=what, place=place: self.step(what, place, full=False)

    def matrix_products(self) -> list[dict]:
        """The yardstick: what this machine makes of large matrix products."""
        kinds = ("fp32", "bf16", "fp16") if self.subject.on_gpu else ("fp32", "bf16")
        seconds = min(1.0, self.plan.share)
        self.peaks = {name: measured_peak(LONG[name], self.subject.device, seconds) for name in kinds}
        rows = []
        for name, tflops in self.peaks.items():
            rows.append(self._row("matrix product", "torch", name, None, tflops=tflops))
            self._share(rows[-1])
        return rows

    def step(self, what: str, place: Place, full: bool) -> list[dict]:
        """Rows of one kind of step at one place."""
        ways = self.steps.ways(what, place, full)
        contenders = [self.steps.contender(what, way, place) for way in ways]
        race(contenders, self.plan.rounds[not full], self.plan.share, self.plan.most, self.subject.on_gpu)
        rows = []
        for way, one in zip(ways, contenders):
            rows.append(self._row(what, way.method, way.dtype, place, checkpointing=way.checkpointing, **summary(one)))
            if rows[-1]["seconds"]:
                rows[-1]["tflop"] = self._arithmetic(what, way, place).at(place.frames) / 1e12
                self._share(rows[-1])
        _compare(rows, LITERAL)
        return rows

    def attentions(self, place: Place, gradient: bool) -> list[dict]:
        """Rows of the attentions alone; `gradient`: forward and backward."""
        attentions = Attentions(self.subject)
        what, dtype = "attention and gradient" if gradient else "attention", attentions.dtype
        rows, contenders = [], []
        for kind in attention.KINDS:
            flops = attentions.flops(kind, place, gradient)
            rows.append(self._row(what, kind, dtype, place, tflop=flops / 1e12))
            too_long = flops / 1e12 / (0.2 * self.peaks[dtype]) > self.plan.longest
            contenders.append(None if too_long else attentions.contender(kind, place, gradient))
        race([one for one in contenders if one], self.plan.rounds[1], self.plan.share / 3, 20, self.subject.on_gpu)
        for row, one in zip(rows, contenders):
            row.update(summary(one) if one else {"note": "left out: takes too long"})
            self._share(row)
        ours, literal, plain = rows[:3]
        _compare([ours, literal], attention.LITERAL)
        if ours["seconds"] and plain["seconds"]:
            ours["time_to_plain"] = ours["seconds"] / plain["seconds"]
        return rows

    def _arithmetic(self, what: str, way: Way, place: Place) -> Arithmetic:
        """Counted once per kind of step, method and size."""
        key = (what, way.method, place.width, place.height)
        if key not in self.arithmetic:
            plain = way if way.checkpointing is None else replace(way, checkpointing=False)
            step = lambda frames: self.steps.runner(what, plain, replace(place, frames=frames))(0)
            self.arithmetic[key] = Arithmetic(step)
            self.steps.leave()
        return self.arithmetic[key]

    def _row(self, what: str, method: str, dtype: str, place: Place | None, **fields) -> dict:
        row = {"what": what, "method": method, "model": self.subject.name if place else None}
        row |= {name: place and getattr(place, name) for name in ("frames", "width", "height")}
        row |= {"dtype": dtype, "checkpointing": None, "seconds": None, "steps_timed": 0, "peak_bytes": None}
        row |= {"tflop": None, "tflops": None, "share_of_peak": None, "ratio_to_literal": None}
        return row | {"memory_to_literal": None, **fields}

    def _share(self, row: dict) -> None:
        """Fills in the speed and its share of the peak: of the data sheet's where that is known, else the measured."""
        if row["seconds"]:
            row["tflops"] = row["tflop"] / row["seconds"]
        if row["tflops"] and row["dtype"] in self.peaks:
            known = datasheet(self.subject.device) if row["dtype"] != "fp32" else None
            row["share_of_peak"] = row["tflops"] / (known or self.peaks[row["dtype"]])


def _compare(rows: list[dict], literal: str) -> None:
    """How many times as fast as the literal way, and with what part of its memory."""
    base = next(row for row in rows if row["method"] == literal)
    for row in rows:
        if row["seconds"] and base["seconds"]:
            row["ratio_to_literal"] = base["seconds"] / row["seconds"]
            if base["peak_bytes"]:
                row["memory_to_literal"] = row["peak_bytes"] / base["peak_bytes"]


