from __future__ import annotations

import numpy as np

from terrain3d.surface.field import differences, interpolation, second_differences, selection, solve_field


def test_solve_field__is_the_least_squares_solution_and_its_sigma() -> None:
    number = np.arange(42).reshape(6, 7)
    second, at = second_differences(number)
    picks = selection(np.array([0, 6, 20, 35, 41]), 42)
    values = np.array([1.0, 3.0, 2.0, -1.0, 4.0]) / 0.5
    rows = [(second / 0.3, np.zeros(second.shape[0])), (picks / 0.5, values), (differences(number) / 5, np.zeros(71))]
    found = solve_field(rows, 42, samples=4000)
    dense = np.vstack([m.toarray() for m, _ in rows])
    right = np.concatenate([b for _, b in rows])
    np.testing.assert_allclose(found.mean, np.linalg.lstsq(dense, right, rcond=None)[0], atol=1e-5)
    exact = np.sqrt(np.diag(np.linalg.inv(dense.T @ dense)))
    np.testing.assert_allclose(found.sigma, exact, rtol=0.06)
    assert at.size == second.shape[0]


def test_second_differences__a_plane_has_none_and_holes_take_no_part() -> None:
    y, x = np.mgrid[0:8, 0:9].astype(float)
    number = np.where((x == 4) & (y == 3), -1, 0).astype(np.int64)
    number[number == 0] = np.arange(71)
    plane = (2 * x - 3 * y + 1)[number >= 0]
    second, _ = second_differences(number)
    assert np.abs(second @ plane).max() < 1e-9
    bowl = (x**2 + y**2 + 0 * x)[number >= 0]
    assert set(np.round(second @ bowl, 6)) == {0.0, 2.0}


def test_interpolation__is_bilinear() -> None:
    number = np.arange(12).reshape(3, 4)
    row = interpolation(np.array([1.25]), np.array([0.5]), number)
    field = np.arange(12) ** 2.0
    a, b = 0.75 * field[1] + 0.25 * field[2], 0.75 * field[5] + 0.25 * field[6]
    np.testing.assert_allclose(row @ field, (a + b) / 2)
