"""Choice of pairs by time and sun, and pairs kept for the sake of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from shapely.ops import unary_union

from terrain3d.image.view import View
from terrain3d.raster import Grid
from terrain3d.simulate.world import REFERENCE
from terrain3d.stereo.pairs import choose_pairs

CRS = REFERENCE.horizontal
NOON = datetime(2024, 4, 1, 10, 30, tzinfo=UTC)
Make = Callable[..., View]
Area = Callable[..., Grid]


def at(view: View, days: float, hours: float = 0.0) -> View:
    return replace(view, acquired=NOON + timedelta(days=days, hours=hours))


def test_pairs__say_gap_and_sun(view_of: Make, area: Area) -> None:
    views = [at(view_of(area(300), 10.0), 0), at(view_of(area(300), -10.0), 0, 50 / 3600)]
    (pair,) = choose_pairs(views, CRS, 520.0)
    assert pair.reason.endswith("50 s apart, sun 0.2 deg apart")
    assert pair.time_gap_days == pytest.approx(50 / 86_400)
    later = [views[0], at(views[1], 30, 2.0)]
    (pair,) = choose_pairs(later, CRS, 520.0)
    assert "30 d apart" in pair.reason and pair.sun_difference_deg is not None and 20 < pair.sun_difference_deg < 35


def test_pairs__unknown_time_does_not_count(view_of: Make, area: Area) -> None:
    views = [view_of(area(300), 10.0), view_of(area(300), -10.0)]
    (unknown,) = choose_pairs(views, CRS, 520.0)
    (half,) = choose_pairs([at(views[0], 0), views[1]], CRS, 520.0)
    (same,) = choose_pairs([at(v, 0) for v in views], CRS, 520.0)
    assert unknown.time_gap_days is None and half.sun_difference_deg is None
    assert unknown.score == half.score == pytest.approx(same.score, rel=1e-6)
    assert "apart" not in unknown.reason


def test_pairs__of_one_day_come_first(view_of: Make, area: Area) -> None:
    views = [at(view_of(area(300), a), d) for a, d in ((12.0, 0), (-8.0, 0), (-7.0, 90))]
    first, *rest = choose_pairs(views, CRS, 520.0)
    assert (first.left, first.right) == (0, 1)
    assert first.score > 2 * max(p.score for p in rest if 2 in (p.left, p.right))


@pytest.mark.slow
def test_pairs__many_images_stay_one_group(view_of: Make, area: Area) -> None:
    """Two passes a year apart: pairs across the year score low, and one is kept all the same."""
    views = [at(view_of(area(300), a, name=f"{d}{a}"), d) for d in (0, 365) for a in (15.0, 5.0, -5.0, -15.0)]
    chosen = [p for p in choose_pairs(views, CRS, 520.0) if p.chosen]
    across = [p for p in chosen if (p.left < 4) != (p.right < 4)]
    assert len(across) == 1 and across[0].reason.endswith("ties groups of images together")


@pytest.mark.slow
def test_pairs__of_twenty_images_about_as_many_as_images(view_of: Make, area: Area) -> None:
    """Two passes of ten images, a year apart: 190 pairs, of which some thirty are matched; none is without partners,
    all are between 8 and 30 degrees, and only what ties the passes together crosses the year."""
    angles = np.linspace(22.0, -22.0, 10)
    first = [view_of(area(300), float(a), name=f"a{k}") for k, a in enumerate(angles)]
    views = [at(v, 0, k / 600) for k, v in enumerate(first)]
    views += [at(replace(v, name=f"b{k}"), 365, k / 600) for k, v in enumerate(first)]
    decided = choose_pairs(views, CRS, 520.0)
    chosen = [p for p in decided if p.chosen]
    assert len(decided) == 190 and 20 <= len(chosen) <= 32
    assert np.bincount([i for p in chosen for i in (p.left, p.right)], minlength=20).min() >= 2
    assert all(8 < p.convergence_deg < 30 for p in chosen)
    assert sum((p.left < 10) != (p.right < 10) for p in chosen) == 1
    assert all(p.reason for p in decided)


def test_pairs__new_ground_is_covered(view_of: Make, area: Area) -> None:
    """Whatever ground some pair shows, a chosen one does."""
    views = [view_of(area(400, 200 * i), a, name=f"{i}{a}") for i in range(3) for a in (12.0, 0.0, -12.0)]
    decided = choose_pairs(views, CRS, 520.0)
    usable = unary_union([p.area for p in decided if p.chosen or "better partners" in p.reason])
    covered = unary_union([p.area for p in decided if p.chosen])
    assert covered.area > 0.99 * usable.area
    assert sum(p.chosen for p in decided) < len(decided) / 2
    assert np.isfinite([p.score for p in decided if p.chosen]).all()
