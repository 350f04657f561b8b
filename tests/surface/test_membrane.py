from __future__ import annotations

import numpy as np

from terrain3d.surface import membrane


def test_membrane__harmonic_function_is_restored() -> None:
    y, x = np.mgrid[0:120, 0:160] / 40.0
    truth = (x**2 - y**2 + 3 * x * y).astype(np.float32)  # Laplace's equation holds
    hole = np.hypot(x - 2, y - 1.5) < 1.0
    got = membrane.membrane(np.where(hole, np.nan, truth).astype(np.float32))
    assert np.abs(got - truth)[hole].max() < 0.025 * np.ptp(truth[hole])
    assert np.array_equal(got[~hole], truth[~hole])


def test_membrane__outside_cells_take_no_part() -> None:
    z = np.full((20, 30), np.nan, np.float32)
    z[:, :5], z[:, 25:] = 1.0, 50.0
    where = np.zeros(z.shape, bool)
    where[:, 5:15] = True
    got = membrane.membrane(z, np.isfinite(z) & (z < 10), where)
    assert np.allclose(got[:, 5:15], 1.0, atol=1e-5)
    assert np.isnan(got[:, 15:]).all()


def test_membrane__nothing_known() -> None:
    assert np.isnan(membrane.membrane(np.full((7, 9), np.nan, np.float32))).all()
