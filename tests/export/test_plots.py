from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from terrain3d.export.plots import Series, histogram, profile, ticks

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3, 3, [-3, -2, -1, 0, 1, 2, 3]), (97, 1180, [200, 400, 600, 800, 1000])],
)
def test_ticks__round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def test_histogram__is_valid_svg_with_escaped_names() -> None:
    rng = np.random.default_rng(0)
    series = [Series("before <a&b>", rng.normal(3, 1, 500)), Series("after", np.append(rng.normal(0, 1, 90), np.nan))]
    text = histogram(series, x_label="residual, m")
    root = ElementTree.fromstring(text)
    labels = [t.text for t in root.iter(f"{SVG}text")]
    assert "before <a&b> (n = 500)" in labels and "after (n = 90)" in labels and "residual, m" in labels
    assert len([p for p in root.iter(f"{SVG}path") if p.get("fill-opacity") == "0.18"]) == 2


def test_profile__positions_of_dots() -> None:
    dotted = Series("a", np.array([0.0, 10.0, np.nan]), np.array([0.0, 5.0, 1.0]), dots=True)
    root = ElementTree.fromstring(profile([dotted], x_label="x", y_label="y"))
    dots = next(p.get("d") for p in root.iter(f"{SVG}path") if p.get("stroke-linecap"))
    assert dots is not None and dots.startswith("M58.0 ") and dots.count("h0") == 2 and "M506.0 " in dots


def test_profile__breaks_at_gaps() -> None:
    root = ElementTree.fromstring(
        profile([Series("p", np.array([1.0, 2.0, np.nan, 3.0, 4.0]))], x_label="m", y_label="h")
    )
    line = next(p.get("d") for p in root.iter(f"{SVG}path") if p.get("stroke-width") == "1.5")
    assert line is not None and line.count("M") == 2 and line.count("L") == 2


def test_plots__of_nothing_and_of_one_value() -> None:
    for values in (np.empty(0), np.full(3, np.nan), np.full(4, 2.0)):
        for text in (
            histogram([Series("a", values)], x_label="x"),
            profile([Series("a", values, values, dots=True)], x_label="x", y_label="y"),
            profile([Series("a", values)], x_label="x", y_label="y"),
        ):
            assert ElementTree.fromstring(text).tag == f"{SVG}svg" and "nan" not in text


def test_profile__dots_and_lines() -> None:
    x = np.linspace(0, 100, 11)
    series = [Series("lidar", x, x, dots=True), Series("DSM", x + 1, x)]
    root = ElementTree.fromstring(profile(series, x_label="m", y_label="m"))
    paths = [p for p in root.iter(f"{SVG}path") if p.get("stroke-linecap")]
    assert len(paths) == 1 and str(paths[0].get("d")).count("M") == 11
