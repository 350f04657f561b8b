from __future__ import annotations

import numpy as np
import pytest

from terrain3d.change.result import ChangeOptions
from terrain3d.errors import ConfigError
from terrain3d.io.rasters import read_classes, read_raster
from terrain3d.io.vectors import read_layer
from terrain3d.pipeline.progress import Silent
from terrain3d.pipeline.series import run_series


@pytest.mark.slow
def test_series__house_that_is_built_and_raised(tmp_path, model):
    epochs = [model(tmp_path / str(k), k, house=h) for k, h in enumerate((0.0, 5.0, 5.0, 9.0))]
    days = ["2020-01-01", "2021-01-01", "2022-01-01", "2023-01-01"]
    done = run_series(epochs, tmp_path / "out", ChangeOptions(), Silent(), dates=days)
    assert done.changes == (1, 0, 1) and done.per == "year"
    first, last, number = (read_classes(tmp_path / "out" / "changes.tif", band).values for band in (1, 2, 3))
    assert (first[110:130, 110:130] == 2).all() and (last[110:130, 110:130] == 4).all() and number[120, 120] == 2
    assert first[:40].max() == 0
    history = read_raster(tmp_path / "out" / "history.tif", 3).values
    assert np.median(history[112:128, 112:128]) == pytest.approx(9.0, abs=0.2)
    slope, sigma = (read_raster(tmp_path / "out" / "rate.tif", band).values for band in (1, 2))
    assert np.median(slope[112:128, 112:128]) == pytest.approx(2.7, abs=0.1)
    assert np.abs(np.nanmedian(slope[:60])) < 0.03 and np.nanmedian(sigma[:60]) < 0.1
    layer = read_layer(tmp_path / "out" / "series.gpkg")
    assert layer.columns["from_epoch"].tolist() == [1, 3] and layer.columns["date_after"].tolist() == [
        "2021-01-01",
        "2023-01-01",
    ]


def test_series__two_epochs_and_wrong_dates(tmp_path, model):
    a, b = model(tmp_path / "a", 1), model(tmp_path / "b", 2)
    with pytest.raises(ConfigError, match="at least three"):
        run_series([a, b], tmp_path / "out", ChangeOptions(), Silent())
    with pytest.raises(ConfigError, match=f"would overwrite what was given, {b}"):
        run_series([a, b, a], b, ChangeOptions(), Silent())
    with pytest.raises(ConfigError, match="2 dates for 3"):
        run_series([a, b, a], tmp_path / "out", ChangeOptions(), Silent(), dates=["2020-01-01", "2021-01-01"])
    with pytest.raises(ConfigError, match="not in the order"):
        run_series(
            [a, b, a], tmp_path / "o", ChangeOptions(), Silent(), dates=["2021-01-01", "2020-01-01", "2022-01-01"]
        )
    assert not (tmp_path / "out").exists()
