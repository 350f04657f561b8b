"""Land turned to water and back, on arrays made for it; a shore that only the tide covers; water seen once only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from terrain3d.change.evidence import EpochSurfaces
from terrain3d.change.kinds import Kind
from terrain3d.change.regions import Patch
from terrain3d.change.shore import Shore, cover_changes, look_at_shore

SIZE, CELL = 160, 0.5
BAY = (slice(50, 110), slice(70, 110))  # 30 m x 20 m beside the lake, which begins at column 110
NAN = np.float32(np.nan)


@dataclass(frozen=True)
class Fake:
    all: EpochSurfaces
    shape: tuple[int, int] = (SIZE, SIZE)
    resolution: float = CELL
    smooth_limit: float = 0.35

    def surfaces(self, where: tuple[slice, slice]) -> EpochSurfaces:
        parts = {n: v[where] for n, v in vars(self.all).items() if v is not None}
        return EpochSurfaces(**parts)


def scene(land: float, levels: tuple[float, float], *, images: bool = True, dark: float = 30.0) -> EpochSurfaces:
    """Land at a height that is water in BAY afterwards, beside a lake whose level may differ."""
    z = [np.full((SIZE, SIZE), 12.0, np.float32) for _ in levels]
    wet = np.zeros((SIZE, SIZE), np.uint8)
    wet[:, 110:] = 3
    wet[BAY] = 2
    z[0][BAY], z[1][BAY] = land, levels[1]
    for surface, level in zip(z, levels, strict=True):
        surface[:, 110:] = level
    measured = [np.where(wet & bit, NAN, surface) for bit, surface in zip((1, 2), z, strict=True)]
    light = [np.where(wet & bit, np.float32(dark), np.float32(100)) for bit in (1, 2)] if images else [None, None]
    return EpochSurfaces(*measured, closed=z[1] - z[0], wet=wet, ortho_before=light[0], ortho_after=light[1])


def backwards(s: EpochSurfaces) -> EpochSurfaces:
    """The same with its epochs exchanged."""
    assert s.wet is not None and s.closed is not None
    wet = np.array([0, 2, 1, 3], np.uint8)[s.wet]
    return EpochSurfaces(
        s.after, s.before, closed=-s.closed, wet=wet, ortho_before=s.ortho_after, ortho_after=s.ortho_before
    )


def found(s: EpochSurfaces, sign: int, least_flood: float = 1.5) -> Shore | None:
    assert s.wet is not None
    mask = cover_changes(s.before, s.after, s.wet, CELL) == sign
    assert mask[BAY].mean() > 0.9 and mask.sum() == mask[BAY].sum()
    return look_at_shore(Patch(sign, 0, 0, mask), Fake(s), least_flood)


def test_shore__bay_dug_and_filled():
    dug = found(scene(12.0, (10.0, 10.0)), -1)
    assert dug is not None and dug.verdict.kind is Kind.LAND_TO_WATER and dug.verdict.margin > 0.9
    assert (dug.cover_before, dug.cover_after) == ("bare", "water")
    assert np.median(dug.rise[dug.patch.cells]) == -2.0 and dug.tone == pytest.approx(0.3)
    filled = found(backwards(scene(12.0, (10.0, 10.0))), 1)
    assert filled is not None and filled.verdict.kind is Kind.WATER_TO_LAND and filled.cover_before == "water"
    assert np.median(filled.rise[filled.patch.cells]) == 2.0


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("land", "levels"), [(10.4, (10.0, 10.9)), (10.3, (10.0, 10.0))])
def test_shore__tide_and_flat_beach_are_no_change(land, levels, turned):
    s = scene(land, levels)
    assert found(backwards(s) if turned else s, 1 if turned else -1) is None


def test_shore__flood_is_a_change():
    assert found(scene(10.4, (10.0, 12.0)), -1) is not None
    assert found(scene(10.4, (10.0, 12.0)), -1, least_flood=3.0) is None


def test_shore__as_bright_as_before_is_a_mistake_of_the_mask():
    assert found(scene(12.0, (10.0, 10.0), dark=95.0), -1) is None
    doubtful = found(scene(12.0, (10.0, 10.0), images=False), -1)
    assert doubtful is not None and doubtful.verdict.margin == 0.5


def test_cover_changes__ragged_rims_and_unmeasured_places_are_none():
    s = scene(12.0, (10.0, 10.0))
    assert s.wet is not None
    strip = np.zeros_like(s.wet)
    strip[:, 100:108] = 2  # 4 m along the whole shore
    assert not cover_changes(np.full_like(s.before, 12.0), s.after, strip, CELL).any()
    unseen = s.before.copy()
    unseen[BAY] = np.nan  # filled, not measured
    assert not cover_changes(unseen, s.after, s.wet, CELL).any()
