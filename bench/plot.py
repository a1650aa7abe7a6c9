"""The plot of docs/performance.md, as an SVG of a few lines: bars on a logarithmic scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from .measure import Figure
from .report import shown
from .results import Results

WIDTH, LABEL, ROW, TITLE, GAP = 860, 350, 22, 34, 16
OURS, PEER = "#1f6feb", "#9aa4b2"


@dataclass(frozen=True, slots=True)
class Panel:
    """A title and its bars: label and value, from the smallest."""

    title: str
    bars: list[tuple[str, float]]


def panels(results: Results) -> list[Panel]:
    """What is drawn, as far as it was measured."""
    found = []
    for key, title, added in (
        ("asgi", "Added to a request, Starlette (µs of CPU)", True),
        ("wsgi", "Added to a request, Flask (µs of CPU)", True),
        ("handler starlette https", "A handler that calls a service over https (µs of CPU)", False),
        ("login https", "A login over https (µs of CPU)", False),
    ):
        table = results.tables.get(key)
        if table is None or table.base not in table.samples:
            continue
        base = Figure.of(table.samples[table.base].cpu).median if added else 0.0
        bars = [
            (name, max(Figure.of(sample.cpu).median - base, 0.1))
            for name, sample in table.samples.items()
            if not added or name != table.base
        ]
        if bars:
            found.append(Panel(title, sorted(bars, key=lambda bar: bar[1])))
    return found


def svg(found: list[Panel]) -> str:
    """The picture. Its ground is white, so that it reads on a dark page too."""
    height = GAP + sum(TITLE + ROW * len(panel.bars) + GAP for panel in found)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="13" role="img">',
        "<title>CPU time of oauthgate and its peers, logarithmic</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    y = GAP
    for panel in found:
        lines.append(f'<text x="16" y="{y + 18}" font-weight="bold">{escape(panel.title)}</text>')
        y += TITLE
        low = min(value for _, value in panel.bars) / 2
        high = max(value for _, value in panel.bars)
        span = math.log(high / low) or 1.0
        for label, value in panel.bars:
            long = max(2.0, (WIDTH - LABEL - 90) * math.log(value / low) / span)
            colour = OURS if "oauthgate" in label else PEER
            lines += [
                f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>',
                f'<rect x="{LABEL}" y="{y + 3}" width="{long:.0f}" height="{ROW - 6}" fill="{colour}"/>',
                f'<text x="{LABEL + long + 6:.0f}" y="{y + 15}">{shown(value)}</text>',
            ]
            y += ROW
        y += GAP
    return "\n".join([*lines, "</svg>"]) + "\n"
