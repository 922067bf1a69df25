"""The measurements: every contender at every place, and the rows they yield."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from . import attention
from .attention import Attentions
from .steps import ENCODED_ONCE, LITERAL, MEANT_ONCE, WHAT, Place, Steps, Way
from .timing import LONG, arithmetic, count_flops, datasheet, measured_peak, race, summary

MEASURED = "checkpointing seconds steps_timed peak_bytes tflop tflops share_of_peak ratio_to_literal memory_to_literal"


@dataclass(frozen=True)
class Plan:
    """What is measured. `base`: the place where all ways are compared. From there, time and memory are followed over
    `frames` and, with `few` frames, over `sizes` (sides of squares in pixels). `attention_frames`: of the attentions
    alone. `rounds` (at the base, elsewhere), `share` (seconds) and `most`: as in `race`."""

    base: Place
    frames: tuple[int, ...]
    sizes: tuple[int, ...]
    few: int
    attention_frames: tuple[int, ...] = (8, 16, 24, 32, 64)
    rounds: tuple[int, int] = (5, 3)
    share: float = 1.0
    most: int = 10
    longest: float = 20.0  # seconds; attentions expected to take longer are skipped

    def places(self) -> list[Place]:
        """All except the base, without duplicates, the most important first."""
        places = [replace(self.base, frames=frames) for frames in self.frames]
        places += [Place(self.few, side, side) for side in self.sizes]
        return [place for place in dict.fromkeys(places) if place != self.base]


class Measurement:
    """Measures on one model; rows are dictionaries. `peaks`: TFLOP/s of large matrix products, by dtype."""

    def __init__(self, steps: Steps, plan: Plan):
        self.steps, self.plan, self.subject = steps, plan, steps.subject
        self.arithmetic = {}  # by kind of step, method and size
        self.peaks: dict[str, float] = {}

    def work(self, only: str | None) -> Iterator[Callable[[], list[dict]]]:
        """The measurements as functions that return rows. `only`: tune, invert, edit or attention."""
        plan, kinds = self.plan, [what for what in WHAT if only in (None, what)]
        yield self.matrix_products
        for what in kinds:
            yield lambda what=what: self.step(what, plan.base, full=True)
        for gradient in (False, True):
            for frames in plan.attention_frames if only in (None, "attention") else ():
                place = replace(plan.base, frames=frames)
                yield lambda place=place, gradient=gradient: self.attentions(place, gradient)
        for what in kinds:
            for place in plan.places():
                yield lambda what=what, place=place: self.step(what, place, full=False)

    def matrix_products(self) -> list[dict]:
        """The yardstick: the speed of large matrix products on this machine."""
        kinds, rows = ("fp32", "bf16", "fp16") if self.subject.on_gpu else ("fp32", "bf16"), []
        for name in kinds:
            self.peaks[name] = measured_peak(LONG[name], self.subject.device, min(1.0, self.plan.share))
            rows.append(self._row("matrix product", "torch", name, None, tflops=self.peaks[name]))
            self._share(rows[-1])
        return rows

    def step(self, what: str, place: Place, full: bool) -> list[dict]:
        """Rows of one kind of step at one place."""
        ways, rows = self.steps.ways(what, place, full), []
        contenders = [self.steps.contender(what, way, place) for way in ways]
        race(contenders, self.plan.rounds[not full], self.plan.share, self.plan.most, self.subject.on_gpu)
        for way, contender in zip(ways, contenders):
            row = self._row(what, way.method, way.dtype, place, checkpointing=way.checkpointing) | summary(contender)
            if row["seconds"]:
                row["tflop"] = self._flops(what, way, place) / 1e12
                self._share(row)
            rows.append(row)
        _compare(rows, LITERAL)
        return rows

    def attentions(self, place: Place, gradient: bool) -> list[dict]:
        """Rows of the attentions alone; `gradient`: forward and backward."""
        attentions, rows, contenders = Attentions(self.subject), [], []
        what, dtype = "attention and gradient" if gradient else "attention", attentions.dtype
        for kind in attention.KINDS:
            tflop = attentions.flops(kind, place, gradient) / 1e12
            rows.append(self._row(what, kind, dtype, place, tflop=tflop))
            too_long = tflop / (0.2 * self.peaks[dtype]) > self.plan.longest
            contenders.append(None if too_long else attentions.contender(kind, place, gradient))
        race(list(filter(None, contenders)), self.plan.rounds[1], self.plan.share / 3, 20, self.subject.on_gpu)
        for row, contender in zip(rows, contenders):
            row |= summary(contender) if contender else {"note": "left out: takes too long"}
            self._share(row)
        ours, literal, plain = rows[:3]
        _compare([ours, literal], attention.LITERAL)
        if ours["seconds"] and plain["seconds"]:
            ours["time_to_plain"] = ours["seconds"] / plain["seconds"]
        return rows

    def _flops(self, what: str, way: Way, place: Place) -> float:
        """Of one step, without recomputation."""
        key = (what, way.method, place.width, place.height)
        if key not in self.arithmetic:
            plain = way if way.checkpointing is None else replace(way, checkpointing=False)
            once = way.method in (ENCODED_ONCE, MEANT_ONCE)

            def count(frames: int) -> int:
                run = self.steps.runner(what, plain, replace(place, frames=frames))
                first = count_flops(lambda: run(0))
                return count_flops(lambda: run(1)) - first if once else first  # only the first step encodes the clip

            self.arithmetic[key] = arithmetic(count)
            self.steps.leave()
        return float(self.arithmetic[key](place.frames))

    def _row(self, what: str, method: str, dtype: str, place: Place | None, **fields) -> dict:
        row = {"what": what, "method": method, "model": self.subject.name if place else None}
        row |= {name: place and getattr(place, name) for name in ("frames", "width", "height")}
        return row | {"dtype": dtype, **dict.fromkeys(MEASURED.split()), "steps_timed": 0, **fields}

    def _share(self, row: dict) -> None:
        """Fills in the speed and its share of the peak: the data sheet's if it is known, else the measured one."""
        if row["seconds"]:
            row["tflops"] = row["tflop"] / row["seconds"]
        if row["tflops"] and row["dtype"] in self.peaks:
            known = datasheet(self.subject.device) if row["dtype"] != "fp32" else None
            row["share_of_peak"] = row["tflops"] / (known or self.peaks[row["dtype"]])


def _compare(rows: list[dict], literal: str) -> None:
    """Fills in the speed and memory relative to the literal way."""
    base = next(row for row in rows if row["method"] == literal)
    for row in rows:
        if row["seconds"] and base["seconds"]:
            row["ratio_to_literal"] = base["seconds"] / row["seconds"]
            if base["peak_bytes"]:
                row["memory_to_literal"] = row["peak_bytes"] / base["peak_bytes"]
