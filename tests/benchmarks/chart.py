"""Curves as tables and as SVG, with both axes logarithmic: what grows in proportion is a straight line."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

import attrs

WIDTH, HEIGHT, MARGIN = 640, 360, 70


@attrs.frozen
class Curve:
    """One measured curve.

    Attributes:
        name: of its file.
        x: what grows.
        y: what is measured.
        points: pairs of both.
    """

    name: str
    x: str
    y: str
    points: Sequence[tuple[float, float]]


def table(curve: Curve) -> str:
    """The points of a curve, in Markdown."""
    rows = [f"| {curve.x} | {curve.y} |", "|---:|---:|"]
    return "\n".join(rows + [f"| {x:,.0f} | {shown(y)} |" for x, y in curve.points])


def shown(value: float) -> str:
    """A number with three digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around some values."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return low, max(high, low + 1)


def write_chart(curve: Curve, path: Path) -> None:
    """Write a curve as SVG; points of nothing are left out, where a logarithm has no place for them."""
    points = [(x, y) for x, y in curve.points if x > 0 and y > 0]
    across, up = decades([x for x, _ in points]), decades([y for _, y in points])

    def place(value: float, ends: tuple[int, int], start: float, end: float) -> float:
        return start + (math.log10(value) - ends[0]) / (ends[1] - ends[0]) * (end - start)

    def at(x: float, y: float) -> tuple[float, float]:
        return place(x, across, MARGIN, WIDTH - 20), place(y, up, HEIGHT - MARGIN, 20)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for power in range(across[0], across[1] + 1):
        x, _ = at(10.0**power, 10.0 ** up[0])
        lines.append(f'<path d="M{x:.1f} 20V{HEIGHT - MARGIN}" stroke="#ddd"/>')
        lines.append(
            f'<text x="{x:.1f}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{10.0**power:,g}</text>'
        )
    for power in range(up[0], up[1] + 1):
        _, y = at(10.0 ** across[0], 10.0**power)
        lines.append(f'<path d="M{MARGIN} {y:.1f}H{WIDTH - 20}" stroke="#ddd"/>')
        lines.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:,g}</text>')
    places = [at(x, y) for x, y in points]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    lines.append(f'<polyline points="{joined}" fill="none" stroke="#a2f" stroke-width="2"/>')
    lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#a2f"/>' for x, y in places]
    middle = (MARGIN + WIDTH - 20) / 2
    lines.append(f'<text x="{middle}" y="{HEIGHT - 24}" text-anchor="middle">{html.escape(curve.x)}</text>')
    lines.append(f'<text x="{MARGIN}" y="14">{html.escape(curve.y)}</text>')
    path.write_text("\n".join([*lines, "</svg>"]) + "\n")
