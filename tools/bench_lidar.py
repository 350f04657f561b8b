"""CPU time and memory of reading ATL03 photons: makes a granule of many, and an ATL08 granule with their classes.

    python tools/bench_lidar.py --photons 20 --folder /tmp/photons

Reads the whole granule, the same with the classes, and a scene of 20 km, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

BEAMS = ("gt1l", "gt1r", "gt2l", "gt2r", "gt3l", "gt3r")
STRONG, WEAK = 140, 40  # photons of a 20 m segment, background included
SIGNAL = 0.7
GROUND_SHARE = 0.6  # of the signal; the rest is canopy
METRES_PER_DEGREE = 111_200.0
CHUNK = 100_000  # as in the product
SCENE = 20_000.0
SOUTH, WEST = 30.0, 100.0
READ = """
import json, resource, sys
from pathlib import Path
import numpy as np
from terrain3d.lidar.read import read_lidar
paths, bounds = [Path(p) for p in sys.argv[2:]], json.loads(sys.argv[1])
lidar = read_lidar(paths, bounds)
used = resource.getrusage(resource.RUSAGE_SELF)
truth = 200 + 150 * np.sin(2 * 3.14159265 * (lidar.returns.lat_deg - 30.0) * 111.2 / 3.0)
error = lidar.returns.height - truth
print(json.dumps({"segments": lidar.n_read, "returns": len(lidar.returns), "cpu_s": used.ru_utime + used.ru_stime,
                  "memory_gb": used.ru_maxrss / 1e6, "median_m": float(np.median(error)),
                  "mad_m": float(np.median(abs(error)))}))
"""


def terrain(along: np.ndarray) -> np.ndarray:
    """Height of the ground over the distance along the track, metres."""
    return 200.0 + 150.0 * np.sin(2 * np.pi * along / 3000.0)


def write_granules(folder: Path, photons: int, seed: int = 1) -> tuple[Path, Path]:
    """ATL03 with that many photons in six beams, and ATL08 with the classes of its signal photons."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "20240501101112_07152306_006_01.h5"
    atl03, atl08 = folder / f"ATL03_{name}", folder / f"ATL08_{name}"
    segments = photons // (3 * (STRONG + WEAK))
    rng = np.random.default_rng(seed)
    with h5py.File(atl03, "w") as light, h5py.File(atl08, "w") as land:
        for file, product in ((light, "ATL03"), (land, "ATL08")):
            file.attrs["short_name"] = product
            file["orbit_info/rgt"], file["orbit_info/cycle_number"] = np.array([715]), np.array([23])
        for i, beam in enumerate(BEAMS):
            strong = beam.endswith("r")
            _write_beam(light.create_group(beam), land.create_group(beam), segments, strong, i, rng)
    return atl03, atl08


def _write_beam(
    light: h5py.Group, land: h5py.Group, segments: int, strong: bool, number: int, rng: np.random.Generator
) -> None:
    light.attrs["atlas_beam_type"] = "strong" if strong else "weak"
    count = rng.poisson(STRONG if strong else WEAK, segments).astype(np.int32)
    total = int(count.sum())
    begin = np.r_[1, 1 + np.cumsum(count[:-1], dtype=np.int64)]
    owner = np.repeat(np.arange(segments), count)
    inner = np.sort(rng.random(total).astype(np.float32) * 20.0 + 20.0 * owner) - 20.0 * owner
    along = 20.0 * owner + inner
    signal = rng.random(total) < SIGNAL
    ground = signal & (rng.random(total) < GROUND_SHARE)
    height = terrain(along) + rng.normal(0, 0.15, total)
    height[signal & ~ground] += rng.uniform(3, 25, total)[signal & ~ground]
    height[~signal] += rng.uniform(-100, 100, total)[~signal]
    confidence = np.full((total, 5), -1, np.int8)
    confidence[:, 0] = np.where(signal, 4, 0)
    middle = 20.0 * np.arange(segments) + 10.0
    identity = 500_000 + np.arange(segments, dtype=np.int32)

    def put(group: h5py.Group, name: str, values: np.ndarray) -> None:
        rows = max(1, min(CHUNK, len(values)))
        group.create_dataset(
            name, data=values, chunks=(rows, *values.shape[1:]), compression="gzip", compression_opts=4, shuffle=True
        )

    put(light, "heights/h_ph", height.astype(np.float32))
    put(light, "heights/lat_ph", SOUTH + along / METRES_PER_DEGREE)
    put(light, "heights/lon_ph", WEST + 0.03 * number + 0.1 * along / METRES_PER_DEGREE)
    put(light, "heights/dist_ph_along", inner.astype(np.float32))
    put(light, "heights/signal_conf_ph", confidence)
    put(light, "heights/quality_ph", np.zeros(total, np.int8))
    put(light, "geolocation/segment_id", identity)
    put(light, "geolocation/ph_index_beg", begin)
    put(light, "geolocation/segment_ph_cnt", count)
    put(light, "geolocation/reference_photon_lat", SOUTH + middle / METRES_PER_DEGREE)
    put(light, "geolocation/reference_photon_lon", WEST + 0.03 * number + 0.1 * middle / METRES_PER_DEGREE)
    put(light, "geolocation/segment_length", np.full(segments, 20.0))
    put(light, "geolocation/delta_time", 2e8 + middle / 7000.0)
    put(light, "geolocation/sigma_h", np.full(segments, 0.15, np.float32))
    put(light, "geolocation/podppd_flag", np.zeros(segments, np.int8))
    put(light, "geolocation/solar_elevation", np.full(segments, -20.0, np.float32))
    put(land, "signal_photons/ph_segment_id", identity[owner[signal]])
    put(land, "signal_photons/classed_pc_indx", (np.arange(total) - begin[owner] + 2)[signal].astype(np.int32))
    put(land, "signal_photons/classed_pc_flag", np.where(ground, 1, 2)[signal].astype(np.int8))
    hundred = slice(0, segments, 5)
    put(land, "land_segments/segment_id_beg", identity[hundred])
    put(land, "land_segments/cloud_flag_atm", np.zeros(len(identity[hundred]), np.int8))


def measure(paths: list[Path], bounds: list[float] | None) -> dict[str, float]:
    """What reading took in a process of its own, and how far the returns are from the terrain."""
    command = [sys.executable, "-c", READ, json.dumps(bounds), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photons", type=float, default=20.0, help="millions")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    atl03, atl08 = write_granules(options.folder, int(options.photons * 1e6))
    print(f"{atl03}: {atl03.stat().st_size / 1e6:.0f} MB, {options.photons:g} million photons")
    reach = 20.0 * options.photons * 1e6 / (3 * (STRONG + WEAK)) / METRES_PER_DEGREE
    middle, half = SOUTH + reach / 2, min(reach / 4, SCENE / 2 / METRES_PER_DEGREE)
    scene = [WEST - 1, middle - half, WEST + 1, middle + half]
    for what, paths, bounds in (
        ("whole granule", [atl03], None),
        ("whole granule, classes of ATL08", [atl03, atl08], None),
        ("scene of 20 km, classes of ATL08", [atl03, atl08], scene),
    ):
        found = measure(paths, bounds)
        print(f"{what}: " + ", ".join(f"{k} {v:.3g}" if k != "returns" else f"{k} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
