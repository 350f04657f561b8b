from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from terrain3d.camera.adjusted import Camera, Correction
from terrain3d.camera.rpc import RpcModel, project

CORRECTION = Correction(line=(7.5, -30.0, 4.0), sample=(-3.25, 2.0, 60.0))


@pytest.fixture(scope="module")
def camera(model: RpcModel) -> Camera:
    return Camera(model.resampled(5000, 5000).normalized(1568, 1200)).corrected(CORRECTION)


def test_project__correction_is_added_in_the_image(camera: Camera) -> None:
    lon, lat = Camera(camera.rpc).locate([0.0, 783.5, 1567.0], [599.5, 599.5, 599.5], 700.0)
    line, sample = camera.project(lon, lat, 700.0)
    u = np.array([-1.0, 0.0, 1.0]) * 783.5 / 784
    assert_allclose(line, 783.5 + 784 * u + 7.5 - 30 * u, atol=1e-9)
    assert_allclose(sample, 599.5 - 3.25 + 2.0 * u, atol=1e-9)


def test_locate__inverts_projection_with_correction(camera: Camera) -> None:
    u, v = np.random.default_rng(3).uniform(0, 1, (2, 1000))
    line, sample, height = u * 1567, v * 1199, 200 + 1600 * u
    found = camera.project(*camera.locate(line, sample, height), height)
    assert_allclose(found, (line, sample), rtol=0, atol=1e-6)


def test_jacobian__with_correction_agrees_with_finite_differences(camera: Camera) -> None:
    lon, lat = camera.locate([100.0, 900.0], [200.0, 1000.0], [300.0, 900.0])
    ground = np.array([lon, lat, [300.0, 900.0]])
    found = camera.jacobian(*ground)
    for k, step in enumerate((1e-6, 1e-6, 0.1)):
        move = np.zeros((3, 1))
        move[k] = step
        ahead, behind = np.array(camera.project(*(ground + move))), np.array(camera.project(*(ground - move)))
        expected = ((ahead - behind) / (2 * step)).T
        assert_allclose(found[:, :, k], expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_correction__identity_changes_nothing(model: RpcModel) -> None:
    assert_allclose(Camera(model).project(5.2, 44.1, 900.0), project(model, 5.2, 44.1, 900.0), rtol=0, atol=0)
