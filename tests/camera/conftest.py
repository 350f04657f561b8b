"""A made-up RPC of a 40 000 px image, so that most tests of cameras need no data."""

from __future__ import annotations

import numpy as np
import pytest

from terrain3d.camera.rpc import RpcModel


def _polynomial(rng: np.random.Generator, main: dict[int, float]) -> tuple[float, ...]:
    values = rng.normal(0, 1e-4, 20)
    for place, value in main.items():
        values[place] = value
    return tuple(values.tolist())


@pytest.fixture(scope="session")
def model() -> RpcModel:
    rng = np.random.default_rng(7)
    return RpcModel(
        line_num=_polynomial(rng, {0: 0.001, 1: 0.02, 2: -1.03, 3: 0.012}),
        line_den=_polynomial(rng, {0: 1.0}),
        samp_num=_polynomial(rng, {0: -0.002, 1: 1.02, 2: 0.017, 3: -0.021}),
        samp_den=_polynomial(rng, {0: 1.0}),
        line_off=20000.5,
        line_scale=20001.0,
        samp_off=19207.5,
        samp_scale=19999.5,
        lon_off_deg=5.25,
        lon_scale_deg=0.125,
        lat_off_deg=44.125,
        lat_scale_deg=0.1,
        height_off=1000.0,
        height_scale=800.0,
    )
