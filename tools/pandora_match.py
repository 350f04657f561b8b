"""Run CNES pandora (census 5 x 5, libsgm, eight paths: what CARS does) on a pair, for ``bench_match.py``.

    python pandora_match.py PAIR.npz DISPARITIES RESULT.npz

It runs in an environment of its own, because pandora and terrain3d need not agree on their dependencies. PAIR holds
left and right; RESULT gets the disparity in terrain3d's sign (NaN where there is none) and the CPU seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandora
import rasterio
from pandora.check_configuration import check_conf
from pandora.constants import Criteria
from pandora.img_tools import create_dataset_from_inputs
from pandora.state_machine import PandoraMachine

PIPELINE: dict[str, Any] = {
    "matching_cost": {"matching_cost_method": "census", "window_size": 5, "subpix": 1},
    "optimization": {
        "optimization_method": "sgm",
        "overcounting": False,
        "min_cost_paths": False,
        "penalty": {"penalty_method": "sgm_penalty", "P1": 4, "P2": 20},
    },
    "disparity": {"disparity_method": "wta", "invalid_disparity": "NaN"},
    "refinement": {"refinement_method": "vfit"},
    "filter": {"filter_method": "median", "filter_size": 3},
    "validation": {"validation_method": "cross_checking_accurate", "cross_checking_threshold": 1.0},
}


def main(pair: Path, disparities: int, result: Path) -> None:
    pandora.import_plugin()
    images = np.load(pair)
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, Any] = {}
        for side in ("left", "right"):
            path = Path(folder) / f"{side}.tif"
            height, width = images[side].shape
            profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": height, "width": width}
            with rasterio.open(path, "w", **profile) as file:
                file.write(images[side].astype(np.float32), 1)
            sides[side] = {"img": str(path), "nodata": -9999}
        # pandora: left x is right x + d
        sides["left"]["disp"] = [1 - disparities, 0]
        machine = PandoraMachine()
        config = check_conf({"input": sides, "pipeline": PIPELINE}, machine)
        config["input"]["right"]["disp"] = [0, disparities - 1]
        left, right = (create_dataset_from_inputs(input_config=config["input"][s]) for s in ("left", "right"))
        small = [d.isel(row=slice(0, 60), col=slice(0, 60 + disparities)) for d in (left, right)]
        pandora.run(machine, *small, config)  # its compilers
        start = time.process_time()
        found, _ = pandora.run(machine, left, right, config)
        seconds = time.process_time() - start
    disparity = -found["disparity_map"].to_numpy()
    disparity[(found["validity_mask"].to_numpy() & int(Criteria.PANDORA_MSK_PIXEL_INVALID)) != 0] = np.nan
    np.savez(result, disparity=disparity.astype(np.float32), seconds=seconds, version=version("pandora"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
