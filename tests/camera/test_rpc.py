from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_allclose
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer

from terrain3d.camera.read import read_rpc
from terrain3d.camera.rpc import RpcModel, jacobian, locate, project
from terrain3d.errors import CameraError

REAL_IMAGES = (
    "real/s2p_pair/img_01.tif",
    "real/s2p_pair/img_02.tif",
    "real/s2p_triplet/img_01.tif",
    "real/s2p_triplet/img_03.tif",
    "real/toulouse/texture_image.tif",
    "scenes/town/epoch1/view_1.tif",
    "scenes/mountain/epoch1/view_3.tif",
)


def _ground(rpc: RpcModel, count: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points over the whole valid volume."""
    x, y, z = np.random.default_rng(1).uniform(-1, 1, (3, count))
    return (
        rpc.lon_off_deg + x * rpc.lon_scale_deg,
        rpc.lat_off_deg + y * rpc.lat_scale_deg,
        rpc.height_off + z * rpc.height_scale,
    )


def _gdal(rpc: RpcModel) -> RPC:
    return RPC(
        height_off=rpc.height_off, height_scale=rpc.height_scale, lat_off=rpc.lat_off_deg, lat_scale=rpc.lat_scale_deg,
        long_off=rpc.lon_off_deg, long_scale=rpc.lon_scale_deg, line_off=rpc.line_off, line_scale=rpc.line_scale,
        samp_off=rpc.samp_off, samp_scale=rpc.samp_scale, line_num_coeff=list(rpc.line_num),
        line_den_coeff=list(rpc.line_den), samp_num_coeff=list(rpc.samp_num), samp_den_coeff=list(rpc.samp_den),
    )  # fmt: skip


def _project_by_gdal(rpc: RPC, lon: np.ndarray, lat: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """GDAL counts from the corner of the first pixel."""
    with RPCTransformer(rpc) as transformer:
        rows, columns = transformer.rowcol(lon, lat, zs=height, op=np.asarray)
    return np.asarray(rows) - 0.5, np.asarray(columns) - 0.5


def test_project__agrees_with_gdal(model: RpcModel) -> None:
    ground = _ground(model)
    assert_allclose(project(model, *ground), _project_by_gdal(_gdal(model), *ground), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", REAL_IMAGES)
def test_project__agrees_with_gdal_on_real_tags(shared_data: Path, name: str) -> None:
    with rasterio.open(shared_data / name) as source:
        rpc, (height, width) = source.rpcs, source.shape
    ours = read_rpc(shared_data / name)
    lines, samples, heights = np.meshgrid([0, height - 1], [0, width - 1], ours.height_range)
    ground = (*locate(ours, lines.ravel(), samples.ravel(), heights.ravel()), heights.ravel())
    assert_allclose(project(ours, *ground), _project_by_gdal(rpc, *ground), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [None, (40000, 38000), (500, 400)])
def test_locate__inverts_projection_over_the_whole_range(model: RpcModel, size: tuple[int, int] | None) -> None:
    rpc = model if size is None else model.normalized(*size)
    lon, lat, height = _ground(model, 5000)
    line, sample = project(rpc, lon, lat, height)
    found = locate(rpc, line, sample, height)
    assert_allclose(project(rpc, *found, height), (line, sample), rtol=0, atol=1e-6)
    assert_allclose(found, (lon, lat), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", REAL_IMAGES)
def test_locate__inverts_projection_on_real_tags(shared_data: Path, name: str) -> None:
    rpc = read_rpc(shared_data / name)
    u, v, w = np.random.default_rng(2).uniform(-1, 1, (3, 2000))
    line, sample = rpc.line_off + u * rpc.line_scale, rpc.samp_off + v * rpc.samp_scale
    height = rpc.height_off + w * rpc.height_scale
    assert_allclose(project(rpc, *locate(rpc, line, sample, height), height), (line, sample), rtol=0, atol=1e-4)


def test_locate__negative_scales(model: RpcModel) -> None:
    """A scale may be negative; the sign then sits in the odd terms of the polynomials."""
    latitude_powers = np.array([0, 0, 1, 0, 1, 0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 3, 1, 0, 2, 0])
    flip = (-1.0) ** latitude_powers
    names = ("line_num", "line_den", "samp_num", "samp_den")
    values = {k: getattr(model, k) for k in model.__dataclass_fields__ if k != "packed"}
    values |= {n: tuple(np.array(values[n]) * flip) for n in names}
    flipped = RpcModel(**{**values, "lat_scale_deg": -model.lat_scale_deg})
    lon, lat, height = _ground(model, 200)
    line, sample = project(model, lon, lat, height)
    assert_allclose(project(flipped, lon, lat, height), (line, sample), rtol=0, atol=1e-7)
    assert_allclose(locate(flipped, line, sample, height), (lon, lat), rtol=0, atol=1e-12)


def test_locate__nan_where_there_is_no_answer(model: RpcModel) -> None:
    lon, lat = locate(model, [np.nan, 1e9, 100.0], [0.0, 0.0, 100.0], [500.0, 500.0, 500.0])
    assert np.isnan(lon[:2]).all() and np.isnan(lat[:2]).all()
    assert np.isfinite([lon[2], lat[2]]).all()


def test_jacobian__agrees_with_finite_differences(model: RpcModel) -> None:
    ground = np.array(_ground(model, 50))
    found = jacobian(model, *ground)
    assert found.shape == (50, 2, 3)
    for k, step in enumerate((1e-6, 1e-6, 0.1)):
        move = np.zeros((3, 1))
        move[k] = step
        ahead, behind = np.array(project(model, *(ground + move))), np.array(project(model, *(ground - move)))
        expected = (ahead - behind) / (2 * step)
        scale = np.abs(expected).max()
        assert_allclose(found[:, :, k], expected.T, rtol=0, atol=2e-7 * scale)


def test_project__broadcasts_like_numpy(model: RpcModel) -> None:
    lon, lat = np.full((3, 1), model.lon_off_deg), np.full((1, 4), model.lat_off_deg)
    line, sample = project(model, lon, lat, 1000.0)
    assert line.shape == sample.shape == (3, 4)
    assert jacobian(model, lon, lat, 1000.0).shape == (3, 4, 2, 3)
    assert project(model, 5.2, 44.1, 900.0)[0].shape == ()


def test_resampled__pixel_positions(model: RpcModel) -> None:
    ground = _ground(model, 20)
    line, sample = project(model, *ground)
    found = project(model.resampled(5000.0, 4000.25, 0.5, 2.0), *ground)
    assert_allclose(found, ((line - 5000) / 0.5, (sample - 4000.25) / 2), rtol=0, atol=1e-8)


def test_normalized__is_the_same_camera(model: RpcModel) -> None:
    other = model.normalized(1000, 600)
    assert (other.line_off, other.line_scale, other.samp_off, other.samp_scale) == (499.5, 500, 299.5, 300)
    ground = _ground(model)
    assert_allclose(project(other, *ground), project(model, *ground), rtol=0, atol=1e-7)
    assert_allclose(jacobian(other, *ground), jacobian(model, *ground), rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(
    "change", [{"line_scale": 0.0}, {"height_scale": 0.0}, {"lat_off_deg": np.nan}, {"samp_den": (1.0,) * 19}]
)
def test_model__refuses_unusable_numbers(model: RpcModel, change: dict[str, object]) -> None:
    values = {k: getattr(model, k) for k in model.__dataclass_fields__ if k != "packed"}
    with pytest.raises(CameraError):
        RpcModel(**{**values, **change})


def test_project__across_the_180th_meridian(model: RpcModel) -> None:
    """A camera over the date line sees ground that PROJ puts on either side of it, on whatever turn its RPC counts."""
    here = replace(model, lon_off_deg=179.99)
    lon, lat, height = _ground(here, 50)
    expected = project(here, lon, lat, height)
    assert (lon > 180).any()
    wrapped = np.where(lon > 180, lon - 360, lon)
    for camera in (here, replace(model, lon_off_deg=-180.01)):
        assert_allclose(project(camera, wrapped, lat, height), expected, atol=1e-6)
        assert_allclose(jacobian(camera, wrapped, lat, height), jacobian(here, lon, lat, height), rtol=1e-9)
    other = replace(model, lon_off_deg=-180.01).turned_to(here.lon_off_deg)
    assert_allclose(locate(other, *expected, height), (lon, lat), atol=1e-9)
