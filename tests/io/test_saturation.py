"""Limits at which images are cut off, told from their values."""

from __future__ import annotations

import numpy as np
import pytest

from terrain3d.io.saturation import find_saturation


def light(share: float, kind: str = "uint16") -> np.ndarray:
    """Values (1, 200, 200) of a scene of which about that share is brighter than the sensor's 2047 (bytes: 255)."""
    values = np.random.default_rng(3).lognormal(6.5, 0.5, (1, 200, 200))
    values *= 2047 / np.quantile(values, 1 - share)
    return np.clip(values, 1, None).astype(kind) if kind == "uint16" else (values / 2047).astype(np.float32)


@pytest.mark.parametrize("share", [0.03, 0.5, 0.94])
def test_find_saturation__share_that_is_cut_off(share: float) -> None:
    found = find_saturation(np.minimum(light(share), 2047).astype(np.float32))
    assert found is not None and found.value == 2047 and found.share == pytest.approx(share, abs=0.005)
    real = find_saturation(np.minimum(light(share, "float32"), np.float32(0.8)))
    assert real is not None and real.value == pytest.approx(0.8) and real.share > share


def test_find_saturation__under_values_that_resampling_lifted_over_it() -> None:
    cut = np.minimum(light(0.3), 2047).astype(np.float32)
    cut[0, ::30] += 25.0
    found = find_saturation(cut)
    assert found is not None and found.value == 2047


def test_find_saturation__none_in_a_scene_that_is_not_cut_off() -> None:
    assert find_saturation(light(0.3).astype(np.float32)) is None
    assert find_saturation(np.minimum(light(0.01), 2047).astype(np.float32)) is None  # roofs
    assert find_saturation(np.full((1, 9, 9), 7, np.float32)) is None
    assert find_saturation(np.full((1, 9, 9), np.nan, np.float32)) is None
