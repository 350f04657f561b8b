from __future__ import annotations

import numpy as np
import pytest

from terrain3d.surface import plate
from terrain3d.surface.plate import Plate, second_difference, solve

SIZE = 32


def system(p: Plate) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of a plate, dense, on the free cells."""
    n = p.weight.size
    bend = np.zeros((n, n))
    for k in range(n):
        unit = np.zeros(n)
        unit[k] = 1
        bend[:, k] = np.nan_to_num(second_difference(unit.reshape(p.weight.shape))).ravel()
    matrix = np.diag(p.weight.ravel()) + bend.T @ (p.stiff.ravel()[:, None] * bend)
    right = p.pull.ravel() - bend.T @ (p.stiff * p.bent).ravel()
    return matrix, right


def chance_plate(weight: float, stiff: float, seed: int = 3) -> Plate:
    rng = np.random.default_rng(seed)
    free = np.zeros((SIZE, SIZE), bool)
    free[3:-3, 3:-3] = True
    free[12:18, 18:26] = False
    around = weight * rng.uniform(0.2, 1.8, free.shape) * free
    pull = around * 0.5 + np.sqrt(around) * rng.normal(size=free.shape)
    bent = 0.02 * rng.normal(size=free.shape) * free
    return Plate(around, pull, stiff * free, bent, free)


@pytest.mark.parametrize(("weight", "stiff", "left"), [(1.0, 5.0, 0.05), (0.15, 20.0, 0.15), (0.5, 250.0, 0.15)])
def test_solve__comes_close_to_the_least_cost(weight: float, stiff: float, left: float) -> None:
    p = chance_plate(weight, stiff)
    matrix, right = system(p)
    free = p.free.ravel()
    exact = np.zeros(free.size)
    exact[free] = np.linalg.solve(matrix[np.ix_(free, free)], right[free])

    def cost(x: np.ndarray) -> float:
        return float(x @ matrix @ x - 2 * right @ x)

    found = solve(p).ravel()
    assert (found[~free] == 0).all()
    least = cost(exact)
    assert least < -1
    assert cost(found) < (1 - left) * least


def test_solve__a_window_has_the_values_of_the_whole_to_the_bit() -> None:
    rng = np.random.default_rng(4)
    size, m = 2 * plate.MARGIN_CELLS + 30, plate.MARGIN_CELLS
    weight = rng.uniform(0.0, 0.3, (size, size))
    free = rng.random((size, size)) < 0.999
    p = Plate(weight * free, rng.normal(size=free.shape) * free, 20.0 * free, 0.1 * rng.normal(size=free.shape), free)
    whole = solve(p, (6, 9))
    for top, left in ((3, 5), (6, 8)):
        layers = (getattr(p, name)[top:, left:] for name in ("weight", "pull", "stiff", "bent", "free"))
        part = solve(Plate(*layers), (6 + top, 9 + left))
        np.testing.assert_array_equal(part[m:-m, m:-m], whole[top + m : -m, left + m : -m])


def test_solve__on_coarse_levels_a_plate_bends_as_on_fine_ones() -> None:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(float)
    z = 0.01 * (x * x - 0.5 * y * y + x * y)
    p = Plate(*(np.ones((SIZE, SIZE)) for _ in range(3)), np.nan_to_num(second_difference(z)), np.ones(z.shape, bool))
    coarse = plate._coarser(p, 0, 0)
    at = z.reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3))
    np.testing.assert_allclose(coarse.bent[2:-2, 2:-2], second_difference(at)[2:-2, 2:-2], atol=1e-9)
    assert coarse.stiff[5, 5] == pytest.approx(1 / 16)
