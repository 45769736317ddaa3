"""Every curve is measured and drawn; how steep it is is nobody's business here."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.benchmarks.chart import Curve, decades, shown, table, write_chart
from tests.benchmarks.growth import FEW, measure, write


def test_every_curve_is_measured_and_written(tmp_path: Path) -> None:
    curves = asyncio.run(measure(FEW))
    write(curves, tmp_path)
    text = (tmp_path / "growth.md").read_text()
    assert {path.stem for path in tmp_path.glob("*.svg")} == {curve.name for curve in curves}
    for curve in curves:
        assert table(curve) in text
        assert len(curve.points) == 2
        assert all(y >= 0 for _, y in curve.points)
    assert "pyglyn" in text.splitlines()[0]


def test_a_straight_line_is_drawn_straight_within_its_axes(tmp_path: Path) -> None:
    write_chart(Curve("line", "x < y", "y", [(10, 1), (100, 10), (1000, 100), (5000, 0)]), tmp_path / "c.svg")
    root = ElementTree.parse(tmp_path / "c.svg").getroot()
    [line] = root.iter("{http://www.w3.org/2000/svg}polyline")
    places = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert len(places) == 3
    (x0, y0), (x1, y1), (x2, y2) = places
    assert abs((x1 - x0) - (x2 - x1)) < 0.2
    assert abs((y1 - y0) - (y2 - y1)) < 0.2
    assert y0 > y1 > y2


def test_numbers_are_shown_with_what_they_are_worth() -> None:
    assert [shown(value) for value in (0.01234, 5.678, 1234567.8)] == ["0.0123", "5.68", "1,234,568"]
    assert decades([3, 4]) == (0, 1)
    assert decades([0]) == (0, 1)
    assert decades([10, 1000]) == (1, 3)
