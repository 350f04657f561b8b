from __future__ import annotations

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.canopy import Seen, canopy_height


def raster(values: np.ndarray) -> Raster:
    return Raster(values.astype(np.float32), Grid(Reference("EPSG:32654"), 0, 0, 0.5, *values.shape))


def test_canopy_height__difference_not_negative_and_void() -> None:
    dsm, dtm = np.full((20, 20), 105.0), np.full((20, 20), 100.0)
    dsm[0, 0], dsm[10:, :] = np.nan, 99.0
    chm = canopy_height(raster(dsm), raster(dtm)).values
    assert np.isnan(chm[0, 0])
    assert chm[5, 5] == 5.0
    assert (chm[10:] == 0).all()


def test_canopy_height__pits_closed_and_gaps_kept() -> None:
    dsm = np.full((60, 60), 15.0)
    dsm[20:22, 20:22] = 4.0  # 1 m
    dsm[40:50, 40:50] = 0.0  # 5 m
    chm = canopy_height(raster(dsm), raster(np.zeros((60, 60)))).values
    assert chm[20:22, 20:22].min() == 15.0
    assert (chm[41:49, 41:49] == 0).all()


def test_canopy_height__unmatched_cells_are_as_high_as_what_is_around() -> None:
    dsm = np.full((60, 60), 12.0)
    dsm[:, 40:] = 0.0
    unmatched = np.zeros(dsm.shape, bool)
    unmatched[10:20, 10:20] = unmatched[10:20, 35:45] = unmatched[40:50, 50:58] = True
    dsm[unmatched] = 0.0
    seen = np.where(unmatched, Seen.NOT, Seen.WELL).astype(np.uint8)
    chm = canopy_height(raster(dsm), raster(np.zeros(dsm.shape)), seen).values
    np.testing.assert_allclose(chm[10:20, 10:20], 12.0, rtol=1e-5)
    assert chm[14, 35] > 10 > 6.5 > chm[14, 40] > chm[14, 44]
    assert chm[40:50, 50:58].max() < 0.01
    np.testing.assert_array_equal(chm[22:33], dsm[22:33])


@pytest.mark.parametrize("high", [10.0, 30.0])
def test_canopy_height__rims_of_a_canopy_are_means_over_the_doubt_of_their_place(high: float) -> None:
    dsm = np.zeros((40, 80))
    dsm[:, 40:] = high
    canopy = np.zeros(dsm.shape, bool)
    canopy[:20] = True
    well, partly, hanging = (
        canopy_height(raster(dsm), raster(np.zeros(dsm.shape)), np.full(dsm.shape, kind, np.uint8), canopy).values
        / high
        for kind in (Seen.WELL, Seen.PARTLY, Seen.HANGING)
    )
    np.testing.assert_allclose(well[10, [20, 60]], [0, 1], atol=0.01)
    assert 0.15 < well[10, 39] < 0.5 < 0.6 < well[10, 40] < 0.85
    assert (hanging[10, 40:50] < partly[10, 40:50]).all() and (partly[10, 44:50] <= well[10, 44:50]).all()
    for chm in (well, partly, hanging):
        assert (np.diff(chm[10, 30:42]) >= 0).all() and chm.min() >= 0
        np.testing.assert_array_equal(chm[38], dsm[38] / high)


def test_canopy_height__crowns_that_were_seen_stay_but_for_their_rims() -> None:
    row, column = np.indices((60, 60))
    dome = 12 - 0.02 * ((row - 30) ** 2 + (column - 30) ** 2)
    chm = canopy_height(raster(dome), raster(np.zeros(dome.shape)), None, np.ones(dome.shape, bool)).values
    np.testing.assert_allclose(chm, np.maximum(dome, 0), atol=1e-5)


def test_canopy_height__other_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="grids"):
        canopy_height(raster(np.zeros((5, 5))), raster(np.zeros((5, 6))))
