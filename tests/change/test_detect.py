from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from shapely import Point

from terrain3d.change.align import align
from terrain3d.change.epoch import Epoch, common_vertical, load_epoch
from terrain3d.change.kinds import Kind
from terrain3d.change.resample import resample
from terrain3d.change.result import ChangeOptions
from terrain3d.crs import ELLIPSOID, UNDECLARED, Reference, Vertical, transform_xy, vertical_from_name
from terrain3d.errors import FrameError, InputFileError, OverlapError
from terrain3d.io.geoid import undulation
from terrain3d.io.rasters import write_raster
from terrain3d.pipeline.detect import detect, detect_stored
from terrain3d.pipeline.progress import Silent
from terrain3d.raster import Grid, Raster
from terrain3d.surface.mask import MaskCode

MIDDLE = Point(500_100.0, 3_899_900.0)


def test_detect__rise_is_positive_and_a_new_building(build, box):
    result = detect(build(1), build(2, change=box(6.0), shift=(1.7, 0.9, 2.3)))
    (region,) = result.regions
    assert region.kind is Kind.NEW_BUILDING
    assert region.measures.mean_dz == pytest.approx(6.0, abs=0.4)
    assert region.polygon.contains(MIDDLE)
    assert 0.5 < region.confidence <= 1
    at = result.difference.sample(MIDDLE.x, MIDDLE.y)
    assert at == pytest.approx(6.0, abs=0.8)
    assert result.significant.values.sum() == pytest.approx(20 * 14 / 0.25, rel=0.1)


def test_detect__fall_is_negative_and_a_demolished_building(build, box):
    result = detect(build(1, change=box(6.0)), build(2))
    (region,) = result.regions
    assert region.kind is Kind.DEMOLISHED_BUILDING
    assert region.measures.volume == pytest.approx(-6 * 280, rel=0.1)


@pytest.mark.parametrize(("dz", "seed"), [(3.0, 3), (8.0, 5), (-5.0, 7)])
def test_detect__volume_within_interval(build, box, dz, seed):
    before, after = build(seed), build(seed + 1, change=box(dz, width=30, depth=24))
    (region,) = detect(before, after).regions
    m = region.measures
    assert abs(m.volume - dz * 720) < 1.96 * m.volume_sigma
    assert m.volume_sigma < 0.15 * abs(m.volume)
    assert m.area == pytest.approx(720, rel=0.06)


def test_detect__volume_sigma_counts_registration_with_the_whole_area(build, box):
    result = detect(build(1), build(2, change=box(6.0)))
    (region,) = result.regions
    assert region.measures.volume_sigma >= result.stable.registration * region.measures.area


@pytest.mark.parametrize("seed", range(3))
def test_detect__nothing_changed(build, seed):
    result = detect(build(10 + seed), build(20 + seed, shift=(0.6, -0.4, 1.0)))
    assert result.regions == ()
    assert result.significant.values.max() == 0
    assert 0.2 < result.stable.nmad < 0.4  # 0.2 m in each
    assert 0 < result.stable.registration < 0.15


def test_detect__sigma_is_calibrated(build):
    # Sigma claimed four times too small must not make changes of noise, and comes out as it is.
    before, after = build(1), build(2)
    small = [Epoch(e.name, e.dsm, Raster(e.sigma.values / 4, e.sigma.grid)) for e in (before, after)]
    result = detect(*small)
    assert result.regions == ()
    assert result.stable.calibration > 2
    ratio = result.difference.values / result.sigma.values
    assert np.nanmedian(np.abs(ratio)) * 1.4826 < 1.15


def test_detect__filled_and_water_never_change(build, box):
    before, after = build(1), build(2, change=box(8.0))
    grid = after.dsm.grid
    codes = np.full(grid.shape, MaskCode.MEASURED, np.uint8)
    codes[160:240, 160:200], codes[160:240, 200:240] = MaskCode.FILLED, MaskCode.WATER
    masked = Epoch(after.name, after.dsm, after.sigma, Raster(codes, grid))
    result = detect(before, masked)
    assert result.regions == ()
    assert np.isnan(result.difference.values[170:230, 170:230]).all()


def test_detect__voids_are_no_change(build):
    before, after = build(1), build(2)
    values = after.dsm.values.copy()
    values[100:160, 100:180] = np.nan
    values[np.random.default_rng(0).random(values.shape) < 0.1] = np.nan
    result = detect(before, Epoch("holes", Raster(values, after.dsm.grid), after.sigma))
    assert result.regions == ()


def test_detect__edges_put_apart_are_no_change(build):
    # A roof that is one cell larger in one epoch, as matching makes it.
    def house(half: float):  # type: ignore[no-untyped-def]
        return lambda z, x, y: np.where((np.abs(x - 100) < half) & (np.abs(y - 100) < half), 115.0, z)

    assert detect(build(1, change=house(10.0)), build(2, change=house(10.9))).regions == ()


def test_detect__other_grid_and_crs(build, box):
    before, wide = build(1), build(2, change=box(6.0), cells=480, offset=(-20.0, 20.0))
    corner = transform_xy("EPSG:32654", "EPSG:32653", np.array([500_100.0]), np.array([3_899_900.0]))
    grid = Grid(Reference("EPSG:32653"), float(corner[0][0]) - 100.3, float(corner[1][0]) + 100.1, 0.45, 440, 440)
    result = detect(before, Epoch("warped", resample(wide.dsm, grid), resample(wide.sigma, grid)))
    (region,) = result.regions
    assert result.difference.grid.reference.horizontal == "EPSG:32654"
    assert region.kind is Kind.NEW_BUILDING and region.polygon.contains(MIDDLE)
    assert region.measures.volume == pytest.approx(6 * 280, rel=0.1)
    assert abs(result.alignment.east) < 0.1 and abs(result.alignment.north) < 0.1


@pytest.mark.slow
def test_detect__finer_after_is_averaged(build, box):
    result = detect(build(1, resolution=1.0, cells=200), build(2, change=box(6.0)))
    (region,) = result.regions
    assert result.difference.grid.resolution == 1.0
    assert region.measures.volume == pytest.approx(6 * 280, rel=0.12)


def test_detect__apart(build):
    with pytest.raises(OverlapError, match="do not overlap"):
        detect(build(1), build(2, offset=(5000.0, 0.0)))


def test_detect__another_place_is_refused(build):
    # Ground of as much relief, but of another place: no shift makes it alike.
    before, after = build(1), build(2)
    white = np.random.default_rng(7).standard_normal(before.dsm.grid.shape)
    hills = (4.0 * (smooth := gaussian_filter(white, 12.0)) / smooth.std()).astype(np.float32)
    with pytest.raises(OverlapError, match=r"failed: .* no more alike than by chance; check CRS and place"):
        detect(before, Epoch("elsewhere", Raster(100 + hills, after.dsm.grid), after.sigma))


class Listener(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize("steps", [1, 8])
def test_detect_stored__not_converged_is_warned_of(build, tmp_path, monkeypatch, steps):
    monkeypatch.setattr("terrain3d.change.align.STEPS", steps)
    monkeypatch.setattr("terrain3d.change.align.LEVELS", (1,))
    listener = Listener()
    before, after = build(1, sigma=0.05), build(2, shift=(1.9, 0.9, 0.4), sigma=0.05)
    found = detect_stored(before, after, ChangeOptions(), tmp_path, 1, listener)
    assert found.alignment.likeness > 0.5 and not found.alignment.unlike
    assert [("did not converge" in w) for w in listener.warnings] == [True] * (steps == 1)
    assert set(listener.warnings) <= set(found.notes)


def test_align__flat_ground_is_not_unlike(build):
    # No relief to be alike in: noise alone must not count as a failure.
    grid = build(1).dsm.grid
    noises = (gaussian_filter(np.random.default_rng(k).standard_normal(grid.shape), 2.0) for k in (5, 6))
    first, second = (Raster((100 + 0.2 * n / n.std()).astype(np.float32), grid) for n in noises)
    found = align(first, second)
    assert found.likeness < 0.15 and found.apart < 1.5 and not found.unlike


@pytest.mark.slow
def test_detect__same_input_same_result(build, box):
    first, second = (detect(build(1), build(2, change=box(5.0))) for _ in range(2))
    assert repr(first.regions) == repr(second.regions) and first.alignment == second.alignment


def test_detect__quality_is_plain_data(build, box):
    import json

    result = detect(build(1), build(2, change=box(5.0)))
    quality = json.loads(json.dumps(result.quality()))
    assert quality["regions"] == {"new_building": 1}
    assert quality["compared_share"] > 0.95
    attributes = result.regions[0].attributes()
    assert list(attributes)[:6] == ["kind", "area_m2", "mean_dz_m", "volume_m3", "volume_sigma_m3", "confidence"]


@pytest.mark.slow
def test_detect__smallest_area_is_an_option(build, box):
    small = box(6.0, width=8.0, depth=8.0)
    assert len(detect(build(1), build(2, change=small)).regions) == 1
    assert detect(build(1), build(2, change=small), ChangeOptions(min_area=120.0)).regions == ()


@pytest.mark.parametrize("which", [(ELLIPSOID, UNDECLARED), (UNDECLARED, ELLIPSOID), (UNDECLARED, UNDECLARED)])
def test_vertical__undeclared_is_refused_unless_told(build, which):
    before, after = (build(1 + k, vertical=v) for k, v in enumerate(which))
    with pytest.raises(FrameError, match=r"declares no vertical reference.*--vertical"):
        common_vertical(before, after)
    first, second, notes = common_vertical(before, after, "same", "same")
    assert first.vertical.name == second.vertical.name and "as told" in notes[0]
    assert np.array_equal(second.dsm.values, after.dsm.values)


def test_vertical__told_overrules_and_converts(build):
    before, after, notes = common_vertical(build(1), build(2, vertical=UNDECLARED), told_after="egm96")
    assert after.vertical == before.vertical
    rise = after.dsm.values - build(2).dsm.values
    assert np.median(rise) == pytest.approx(float(undulation(vertical_from_name("egm96"), 141.0, 35.24)), abs=0.05)
    assert len(notes) == 2


def test_vertical__geoid_is_converted(build):
    egm96 = vertical_from_name("egm96")
    before, after, notes = common_vertical(build(1), build(2, vertical=egm96))
    rise = after.dsm.values - build(2).dsm.values
    assert after.dsm.grid.reference == before.dsm.grid.reference
    n = undulation(egm96, 141.0, 35.24)
    assert np.median(rise) == pytest.approx(float(n), abs=0.05) and n > 20
    assert "converted from egm96 to ellipsoid" in notes[0]


def test_vertical__geoid_without_grid(build):
    with pytest.raises(FrameError, match="EGM2008 height"):
        common_vertical(build(1), build(2, vertical=Vertical("EGM2008 height")))


def test_load_epoch__run_directory_and_file(build, tmp_path):
    epoch = build(1)
    codes = Raster(np.full(epoch.dsm.grid.shape, MaskCode.MEASURED, np.uint8), epoch.dsm.grid)
    write_raster(tmp_path / "dsm.tif", epoch.dsm, nodata=-9999)
    write_raster(tmp_path / "dsm_sigma.tif", epoch.sigma, nodata=-9999, heights=False)
    write_raster(tmp_path / "mask.tif", codes, nodata=0, heights=False)
    read = load_epoch(tmp_path)
    assert read.name == tmp_path.name and read.dtm is None
    assert np.array_equal(read.dsm.read(10, 20, 50, 60), epoch.dsm.values[10:60, 20:80])
    assert read.mask is not None and read.mask.read(0, 0, 9, 9).max() == MaskCode.MEASURED
    assert read.dsm.grid.reference.vertical.is_ellipsoid
    assert load_epoch(tmp_path / "dsm.tif").sigma is None


def test_load_epoch__absent(tmp_path):
    with pytest.raises(InputFileError, match="no such"):
        load_epoch(tmp_path / "nowhere")
    with pytest.raises(InputFileError, match="holds no dsm"):
        load_epoch(tmp_path)


@pytest.mark.slow
def test_detect__without_sigma(build, box):
    before, after = build(1), build(2, change=box(6.0))
    result = detect(Epoch("a", before.dsm), Epoch("b", after.dsm))
    assert [r.kind for r in result.regions] == [Kind.NEW_BUILDING]
    assert any("a has no sigma" in note for note in result.notes)


def test_detect__straight_edges_and_no_larger_than_the_building(build, box):
    (region,) = detect(build(1), build(2, change=box(6.0, width=24, depth=16))).regions
    assert region.polygon.area == pytest.approx(24 * 16, rel=0.05)
    assert len(region.polygon.exterior.coords) == 5
    assert region.cover_before == "bare" and region.cover_after == "built"
    assert region.measures.extreme_dz == pytest.approx(6.0, abs=0.8)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [200])
def test_detect_stored__blocks_make_no_difference(build, box, tmp_path, monkeypatch, blocks):
    import terrain3d.pipeline.blocks as cutting
    from terrain3d.pipeline.detect import detect_stored
    from terrain3d.pipeline.progress import Silent

    whole = detect(build(1), build(2, change=box(6.0)))
    monkeypatch.setattr(cutting, "BLOCK_CELLS", blocks)
    parts = detect_stored(build(1), build(2, change=box(6.0)), ChangeOptions(), tmp_path, 2, Silent())
    (one,), (other,) = parts.regions, whole.regions
    assert one.polygon == other.polygon and one.kind is other.kind
    assert one.measures.volume == other.measures.volume
    assert one.measures.volume_sigma == pytest.approx(other.measures.volume_sigma, rel=1e-4)
    sigma = parts.sigma.read(0, 0, *parts.sigma.grid.shape)
    assert np.nanmax(np.abs(sigma - whole.sigma.values)) < 1e-5


@pytest.mark.slow
def test_detect__detectable_is_what_would_have_been_seen(build, box):
    result = detect(build(1), build(2))
    least = np.nanmedian(result.detectable.values)
    assert 1.5 <= least < 2.5
    assert detect(build(1), build(2, change=box(1.4 * least))).regions != ()
    assert detect(build(1), build(2, change=box(0.6 * least))).regions == ()
