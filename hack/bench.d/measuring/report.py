"""The results as JSON, as tables in docs/benchmarks.md and as charts beside it."""

import json
import os

from . import chart
from .figures import Result, median

BEGIN, END = "<!-- written by hack/bench import --record -->", "<!-- up to here -->"


def megabytes(value):
    """Returns bytes as a cell of a table."""
    if value is None:
        return ""
    digits = 3 if abs(value) < 1e5 else 1 if abs(value) < 1e8 else 0
    return f"{value / 1e6:.{digits}f}"


def count(value):
    """Returns a number of things as a cell of a table."""
    return "" if value is None else f"{value:g}"


def table(comparison):
    """Returns the table of a comparison; the first contender is the one that others are held against."""
    lines = [
        "| | seconds | of all runs | times ours | CPU s | memory MB | wire MB | requests | disk MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    ours = median(next(iter(comparison.samples.values())))
    for name, runs in comparison.samples.items():
        walls = [run.wall for run in runs]
        peak = max(run.peak for run in runs)
        lines.append(
            f"| {name} | {median(runs):.2f} | {min(walls):.2f}–{max(walls):.2f} | {median(runs) / ours:.2f} "
            f"| {median(runs, 'cpu'):.2f} | {peak / 1e6:.0f} "
            f"| {megabytes(median(runs, 'wire'))} | {count(median(runs, 'requests'))} | {megabytes(median(runs, 'disk'))} |"
        )
    return "\n".join(lines)


def verdicts(targets):
    """Returns the targets of a case as a list."""
    return "\n".join(f"- {target.line().replace('ok    ', 'ok:', 1).replace('MISSED', '**missed**:', 1)}" for target in targets)


def between(text, content, begin=BEGIN, end=END):
    """Returns a text with other content between two marks, which stay."""
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no place between {begin} and {end}")
    return f"{head}{begin}\n\n{content.strip()}\n\n{end}{tail}"


class Record:
    """The recorded results: those of the cases that ran replace the old ones, the others stay."""

    def __init__(self, docs):
        self.docs = docs
        self.folder = f"{docs}/benchmarks"

    def save(self, results, machine, date, runs):
        """Writes results.json, the charts, and the sections between the marks of benchmarks.md."""
        try:
            with open(f"{self.folder}/results.json") as file:
                recorded = json.load(file)
        except FileNotFoundError:
            recorded = {}
        for name, result in results.items():
            recorded[name] = {"date": date, "runs": runs, "machine": machine, **result.as_data()}
        self._write("results.json", json.dumps(recorded, indent=1) + "\n")
        shown = [heads(recorded)]
        for name, case in recorded.items():
            shown.append(self._section(name, Result.from_data(case)))
        with open(f"{self.docs}/benchmarks.md") as file:
            text = file.read()
        with open(f"{self.docs}/benchmarks.md", "w") as file:
            file.write(between(text, "\n\n".join(shown)))

    def _section(self, name, result):
        """Writes a case's charts and returns its section."""
        parts = [f"### `{name}`"]
        for number, one in enumerate(result.comparisons, 1):
            file = f"{name}{f'-{number}' if len(result.comparisons) > 1 else ''}.svg"
            walls = [(label, median(runs)) for label, runs in one.samples.items()]
            self._write(file, chart.bars(one.title, walls, "s"))
            parts += [f"![{one.title}, seconds](benchmarks/{file})", table(one)]
        for curve in result.curves:
            self._write(f"{name}-curve.svg", chart.lines(curve.title, curve.points, curve.across, "s"))
            parts.append(f"![{curve.title}](benchmarks/{name}-curve.svg)")
        return "\n\n".join([*parts, verdicts(result.targets)])

    def _write(self, name, text):
        os.makedirs(self.folder, exist_ok=True)
        with open(f"{self.folder}/{name}", "w") as file:
            file.write(text)


def heads(recorded):
    """Returns the machines and programs that the cases were measured with; cases that share all of it share a table."""
    groups = {}
    for name, case in recorded.items():
        head = {"date": case["date"], "runs": case["runs"], **case["machine"]}
        groups.setdefault(json.dumps(head), []).append(name)
    shown = []
    for head, names in groups.items():
        rows = "\n".join(f"| {key} | {value} |" for key, value in json.loads(head).items())
        shown.append(f"`{'`, `'.join(names)}` were measured on\n\n| | |\n| --- | --- |\n{rows}")
    return "\n\n".join(shown)
