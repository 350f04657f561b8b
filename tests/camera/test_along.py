"""Along-track splines of a correction: they invert, differentiate and hold their ends."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from terrain3d.camera.adjusted import Camera, Correction, along_basis
from terrain3d.camera.rpc import RpcModel

RNG = np.random.default_rng(0)
JITTER = Correction((7.5, -3.0, 4.0), (-3.25, 2.0, 6.0), *(tuple(RNG.normal(0, 0.5, 24).tolist()) for _ in range(2)))


@pytest.fixture(scope="module")
def camera(model: RpcModel) -> Camera:
    return Camera(model.resampled(5000, 5000).normalized(1568, 1200)).corrected(JITTER)


def test_basis__sums_to_one_and_holds_its_ends() -> None:
    u = np.linspace(-1, 1, 301)
    basis = along_basis(u, 9)
    assert_allclose(basis.sum(axis=1), 1, atol=1e-12)
    assert (basis >= 0).all() and (np.count_nonzero(basis, axis=1) <= 4).all()
    assert_allclose(basis @ (np.arange(9) - 4.0) / 3, u, atol=1e-12)  # linear coefficients make a line
    assert_allclose(along_basis(np.array([-1.5, 1.2]), 9), along_basis(np.array([-1.0, 1.0]), 9))


def test_locate__inverts_projection_with_splines(camera: Camera) -> None:
    line, sample, height = RNG.uniform(0, 1567, 2000), RNG.uniform(0, 1199, 2000), RNG.uniform(200, 1800, 2000)
    found = camera.project(*camera.locate(line, sample, height), height)
    assert_allclose(found, (line, sample), rtol=0, atol=1e-6)
    grid = camera.locate(line.reshape(40, 50), sample.reshape(40, 50), 700.0)
    assert_allclose(grid[0].ravel(), camera.locate(line, sample, 700.0)[0], rtol=0, atol=1e-12)
    assert np.shape(camera.locate(100.0, 200.0, np.array([300.0, 500.0]))[0]) == (2,)


def test_jacobian__with_splines_agrees_with_finite_differences(camera: Camera) -> None:
    lon, lat = camera.locate([100.0, 900.0], [200.0, 1000.0], [300.0, 900.0])
    ground = np.array([lon, lat, [300.0, 900.0]])
    found = camera.jacobian(*ground)
    bare = camera.corrected(Correction(JITTER.line, JITTER.sample)).jacobian(*ground)
    assert np.abs(found / bare - 1).max() > 1e-3  # the splines do count
    for k, step in enumerate((1e-7, 1e-7, 0.05)):
        move = np.zeros((3, 1))
        move[k] = step
        ahead, behind = np.array(camera.project(*(ground + move))), np.array(camera.project(*(ground - move)))
        expected = ((ahead - behind) / (2 * step)).T
        assert_allclose(found[:, :, k], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_project__nan_stays_nan(camera: Camera) -> None:
    assert np.isnan(camera.project(np.nan, 44.0, 500.0)).all()


def test_correction__of_coefficients_and_identity() -> None:
    made = Correction.of(np.array([1.0, 2, 3, 4, 5, 6, 7]), np.zeros(7))
    assert made == Correction((1, 2, 3), (0, 0, 0), (4, 5, 6, 7), (0, 0, 0, 0))
    assert Correction.of(np.zeros(3), np.zeros(3)) == Correction()
