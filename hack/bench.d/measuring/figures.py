"""Medians, ratios and targets."""

import statistics
from dataclasses import asdict, dataclass, field

from .measure import Sample


def median(samples, what="wall"):
    """Returns the median of one figure of many samples, or None where it means nothing."""
    values = [getattr(sample, what) for sample in samples if getattr(sample, what) is not None]
    return statistics.median(values) if values else None


@dataclass
class Comparison:
    """Contenders at one task: samples by the contender's name, in the order of the table."""

    title: str
    samples: dict

    def ratio(self, one, other, what="wall"):
        """Returns how many times as much one contender needs as another, by medians."""
        return median(self.samples[one], what) / median(self.samples[other], what)

    def peak(self, start):
        """Returns the highest memory of all runs of contenders whose names begin so."""
        return max(sample.peak for name, runs in self.samples.items() if name.startswith(start) for sample in runs)


@dataclass
class Target:
    """A figure and the bound that it must keep."""

    name: str
    value: float
    bound: float
    is_minimum: bool = False
    note: str = ""

    @property
    def met(self):
        """Returns whether the bound is kept."""
        return self.value >= self.bound if self.is_minimum else self.value <= self.bound

    def line(self):
        """Returns the verdict as a line of text."""
        bound = f"at {'least' if self.is_minimum else 'most'} {self.bound:g}"
        note = f"; {self.note}" if self.note else ""
        return f"{'ok    ' if self.met else 'MISSED'} {self.name}: {self.value:.3g} ({bound}{note})"


def faster(comparison, one, other, bound):
    """Returns the target that one contender is some times faster than another."""
    left, right = median(comparison.samples[one]), median(comparison.samples[other])
    note = f"{right:.2f} s / {left:.2f} s"
    return Target(f"{comparison.title}: {other} / {one}", right / left, bound, True, note)


def at_most(comparison, one, other, bound):
    """Returns the target that one contender needs at most a share of another's time."""
    left, right = median(comparison.samples[one]), median(comparison.samples[other])
    return Target(f"{comparison.title}: {one} / {other}", left / right, bound, False, f"{left:.2f} s / {right:.2f} s")


def memory(comparison, start, bound=150):
    """Returns the target for the peak memory in MB."""
    return Target(f"{comparison.title}: peak memory of {start}, MB", comparison.peak(start) / 1e6, bound, False, "highest of all runs")


@dataclass
class Curve:
    """A figure over the size of the image: points of x and seconds by the contender's name."""

    title: str
    across: str
    points: dict


@dataclass
class Result:
    """What a case found."""

    comparisons: list
    targets: list
    curves: list = field(default_factory=list)

    def as_data(self):
        """Returns what JSON can hold."""
        return {**asdict(self), "targets": [{**asdict(target), "met": target.met} for target in self.targets]}

    @classmethod
    def from_data(cls, data):
        """Returns a result that was written as JSON."""
        return cls(
            [
                Comparison(one["title"], {name: [Sample(**run) for run in runs] for name, runs in one["samples"].items()})
                for one in data["comparisons"]
            ],
            [Target(**{key: value for key, value in target.items() if key != "met"}) for target in data["targets"]],
            [Curve(**curve) for curve in data["curves"]],
        )


def curve(title, across, comparisons, sizes, names):
    """Returns the curve of some contenders through comparisons of images of growing size."""
    points = {name: [(size, median(one.samples[name])) for size, one in zip(sizes, comparisons)] for name in names}
    return Curve(title, across, points)
