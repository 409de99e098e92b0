"""Charts as SVG, drawn by hand: bars for a comparison, lines for a figure over the size of the image.

Colours follow the reader's light or dark setting; everything that colour tells is written beside it as well.
"""

from xml.sax.saxutils import escape

STYLE = """<style>
text{font:13px sans-serif;fill:#24292f}.title{font-weight:bold;font-size:15px}.quiet{fill:#57606a}
.axis{stroke:#8c959f;stroke-width:1}.grid{stroke:#d0d7de;stroke-width:1}
.c0{fill:#0969da;stroke:#0969da}.c1{fill:#8c959f;stroke:#8c959f}.c2{fill:#bc4c00;stroke:#bc4c00}
.c3{fill:#1a7f37;stroke:#1a7f37}.c4{fill:#8250df;stroke:#8250df}.line{fill:none;stroke-width:2.5}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}.grid{stroke:#3d444d}
.c0{fill:#4493f8;stroke:#4493f8}.c1{fill:#6e7681;stroke:#6e7681}.c2{fill:#db6d28;stroke:#db6d28}
.c3{fill:#3fb950;stroke:#3fb950}.c4{fill:#ab7df8;stroke:#ab7df8}}
</style>"""
OURS = "apt-ostree"
LABELS, BARS, VALUES, ROW = 300, 420, 80, 26


def document(width, height, title, parts):
    """Returns a whole SVG."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">\n{STYLE}\n'
        f'<text class="title" x="8" y="20">{escape(title)}</text>\n{body}\n</svg>\n'
    )


def text(x, y, words, anchor="start", kind=""):
    """Returns a piece of text."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def shown(value):
    """Returns a number with three digits that count, as people write it."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def nice(highest):
    """Returns the distance of the lines of a scale that ends at or above a value: 1, 2 or 5 of a power of ten."""
    step = 10.0 ** -6
    while True:
        for factor in (1, 2, 5):
            if step * factor * 5 >= highest:
                return step * factor
        step *= 10


def bars(title, values, unit):
    """Returns horizontal bars, one for each pair of name and value; the program's own stand out."""
    highest = max(value for _, value in values) or 1
    parts = []
    for number, (name, value) in enumerate(values):
        y = 36 + number * ROW
        length = BARS * value / highest
        kind = "c0" if name.startswith(OURS) else "c1"
        parts.append(text(LABELS - 8, y + 15, name, "end"))
        parts.append(f'<rect class="{kind}" x="{LABELS}" y="{y + 3}" width="{max(length, 1):.1f}" height="{ROW - 8}"/>')
        parts.append(text(LABELS + length + 6, y + 15, f"{shown(value)} {unit}", kind="quiet"))
    return document(LABELS + BARS + VALUES, 36 + len(values) * ROW + 10, title, parts)


def lines(title, curves, across, unit):
    """Returns curves over a number: {name: [(x, y), ...]}, both scales from zero."""
    left, top, width, height = 60, 40, 470, 260
    most = max(x for points in curves.values() for x, _ in points)
    step = nice(max(y for points in curves.values() for _, y in points))
    highest = step * 5
    def place(x, y):
        return left + width * x / most, top + height * (1 - y / highest)
    parts = []
    for number in range(6):
        _, y = place(0, number * step)
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}"/>')
        parts.append(text(left - 6, y + 4, f"{number * step:g} {unit}", "end", "quiet"))
    for x in sorted({x for points in curves.values() for x, _ in points}):
        parts.append(text(place(x, 0)[0], top + height + 18, f"{x:,}", "middle", "quiet"))
    parts.append(text(left + width / 2, top + height + 36, across, "middle", "quiet"))
    taken = []
    for number, (name, points) in enumerate(sorted(curves.items(), key=lambda curve: -curve[1][-1][1])):
        places = [place(x, y) for x, y in points]
        kind = "c0" if name.startswith(OURS) else f"c{1 + number % 4}"
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="{kind} line" style="fill:none" points="{joined}"/>')
        parts += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]
        # Labels of curves that end close to each other stand below each other.
        y = max([places[-1][1] + 4, *(other + 17 for other in taken[-1:])])
        taken.append(y)
        parts.append(text(left + width + 10, y, f"{name}: {shown(points[-1][1])} {unit}"))
    return document(left + width + 280, top + height + 50, title, parts)
