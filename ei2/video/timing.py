"""Which frame is shown when: an even rate for a span's frames, whatever their time stamps."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from statistics import median

NEAR = 0.75  # of a frame: the largest deviation of a frame from its place at an even rate
ROUNDING = 0.0011  # seconds: Matroska and FLV have times in whole milliseconds
GIF_ROUNDING = 0.01  # seconds: GIF has durations in whole hundredths
MOST_RATE = 1000  # frames per second: two frames that are closer have disordered times
MOST_HOLES = 1 / 3  # of the frames: if more are missing, the rate counts as variable
USUAL_RATES = [
    *map(Fraction, (*range(1, 31), 48, 50, 60, 100, 120, 240)),
    *(Fraction(1000 * n, 1001) for n in (24, 30, 60, 120)),
]


@dataclass(frozen=True)
class Even:
    """Frames at an even rate.

    rate: frames per second. slots: for each frame, the tick at which it appears (0: the first
    tick of the span; negative: before it). end: the tick at which the last frame ends.
    """

    rate: Fraction
    slots: list[int]
    end: int


def even_rate(times: list[float], stated: list[Fraction]) -> Fraction:
    """The rate of most of the frames at `times` (seconds): one that the file states, if it fits."""
    steps = [b - a for a, b in zip(times, times[1:]) if b > a]
    if not steps:
        return stated[0] if stated else Fraction(25)
    middle = Fraction(1 / median(steps)).limit_denominator(1000)
    mean = Fraction(len(steps) / sum(steps)).limit_denominator(1000)
    usual = sorted(USUAL_RATES, key=lambda rate: abs(rate - mean))
    likely = [rate for rate in (*stated, *usual) if _near(rate, middle)]
    # Times that tremble: their mean step says more than the median, and the frames are at an even rate all the same.
    even = [rate for rate in (*stated, *usual) if (_near(rate, middle) or _near(rate, mean)) and is_even(times, rate)]
    # the first of equally good ones
    return min(even or likely or [*stated, middle, mean], key=lambda rate: (_error(steps, rate), _misses(times, rate)))


def _near(rate: Fraction, other: Fraction) -> bool:
    return abs(rate - other) < other / 50


def _error(steps: list[float], rate: Fraction) -> float:
    """How far the steps (seconds) deviate from this rate: the sum of squares, in frames. A pause counts little, and
    rounding to whole milliseconds not at all."""
    rate = float(rate)
    return round(sum(min(max(0.0, abs(step * rate - 1) - ROUNDING * rate), 0.5) ** 2 for step in steps), 6)


def _misses(times: list[float], rate: Fraction) -> int:
    """How many frames do not follow the previous one at this rate."""
    if is_even(times, rate):
        return 0
    places = [round((time - times[0]) * float(rate)) for time in times]
    return 1 + sum(b - a != 1 for a, b in zip(places, places[1:]))


def unrounded(times: list[float], rounding: float) -> list[float]:
    """Times (seconds) that were rounded to a multiple of `rounding`: the exact ones, if they fit an even rate.

    A GIF of 24 frames per second has steps of 0.04 and 0.05 s. Only if all steps are equal, they are exact.
    """
    steps = {round((b - a) / rounding) for a, b in zip(times, times[1:])}
    if len(steps) < 2:
        return times
    count, length = len(times) - 1, times[-1] - times[0]
    mean = Fraction(count / length).limit_denominator(1000)
    usual = sorted(USUAL_RATES, key=lambda rate: (rate.denominator, abs(rate - mean)))
    rate = next((rate for rate in usual if abs(count / float(rate) - length) <= rounding), mean)
    exact = [times[0] + index / float(rate) for index in range(len(times))]
    return exact if all(abs(a - b) <= rounding + 1e-9 for a, b in zip(exact, times)) else times


def has_holes(times: list[float], rate: Fraction) -> bool:
    """Whether these are frames at an even rate with a few missing; the missing ones then count too."""
    places = [(time - times[0]) * float(rate) for time in times]
    ticks = round(places[-1]) + 1
    return 0 < ticks - len(times) <= MOST_HOLES * ticks and all(abs(one - round(one)) < 0.3 for one in places)


def is_even(times: list[float], rate: Fraction) -> bool:
    """Whether each of the frames at `times` (seconds) is near its place at this rate."""
    return all(abs((time - times[0]) * float(rate) - index) <= NEAR for index, time in enumerate(times))


def even_out(times: list[float], start: float, rate: Fraction, last_duration: float | None) -> Even:
    """The frames at `times` (seconds) at an even `rate`, counted from `start` (seconds).

    A frame appears at the tick nearest to its time; at a rate lower than the frames' own, the tick must not be more
    than half a frame later than the frame. last_duration: the duration of the last frame (seconds); None: the usual
    one. Source: FFmpeg's filter `fps`, `round=near`.
    """
    first = next((index for index, time in enumerate(times) if time >= start - 1e-9), len(times))
    own = even_rate(times[first:], [rate])
    if own == rate and is_even(times[first:], rate) and first < len(times) and abs(times[first] - start) * rate <= 0.5:
        slots = [index - first for index in range(len(times))]
        return Even(rate, slots, len(times) - first)
    slack = 0.5 * min(1.0, float(rate / own))
    slots = [ceil((time - start) * float(rate) - slack - 1e-9) for time in times]
    length = float(1 / own) if last_duration is None else last_duration
    end = max(slots[-1] + 1, ceil((times[-1] + length - start) * float(rate) - slack - 1e-9)) if times else 0
    return Even(rate, slots, end)
