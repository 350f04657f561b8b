"""An image in sensor geometry with its RPC in the GeoTIFF tag."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from terrain3d.camera.rpc import RpcModel
from terrain3d.io.atomic import atomic_path


def rpc_tags(rpc: RpcModel) -> dict[str, str]:
    """GDAL's RPC metadata of a camera: pixel (0, 0) is the centre of the first pixel, as in RPC00B."""
    numbers = {
        "LINE_OFF": rpc.line_off, "LINE_SCALE": rpc.line_scale, "SAMP_OFF": rpc.samp_off, "SAMP_SCALE": rpc.samp_scale,
        "LONG_OFF": rpc.lon_off_deg, "LONG_SCALE": rpc.lon_scale_deg, "LAT_OFF": rpc.lat_off_deg,
        "LAT_SCALE": rpc.lat_scale_deg, "HEIGHT_OFF": rpc.height_off, "HEIGHT_SCALE": rpc.height_scale,
        "ERR_BIAS": -1.0, "ERR_RAND": -1.0,
    }  # fmt: skip
    polynomials = {
        "LINE_NUM_COEFF": rpc.line_num, "LINE_DEN_COEFF": rpc.line_den,
        "SAMP_NUM_COEFF": rpc.samp_num, "SAMP_DEN_COEFF": rpc.samp_den,
    }  # fmt: skip
    return {k: f"{v:.17g}" for k, v in numbers.items()} | {
        k: " ".join(f"{c:.17g}" for c in v) for k, v in polynomials.items()
    }


def write_image(path: Path, image: NDArray[np.uint16], rpc: RpcModel) -> Path:
    """Write an image (h, w): tiled, DEFLATE, nodata 0, RPC tag, no georeference. Raises OutputError."""
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": 1, "height": image.shape[0], "width": image.shape[1],
        "nodata": 0, "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2,
        "bigtiff": "if_safer",
    }  # fmt: skip
    with atomic_path(path) as part, rasterio.Env(GDAL_PAM_ENABLED="NO"), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(part, "w", **profile) as file:
            file.update_tags(ns="RPC", **rpc_tags(rpc))
            file.write(image, 1)
    return path
