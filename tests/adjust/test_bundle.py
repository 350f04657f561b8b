"""Bundle adjustment on exact synthetic ties of simulated pushbroom cameras with pointing errors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.adjust.along import along_terms, follow_jitter
from terrain3d.adjust.bundle import BIAS_SIGMA_PX, DRIFT_SIGMA_PX, Adjustment, adjust, intersect
from terrain3d.adjust.sigma import height_sigma
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera, Correction
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.raster import Grid
from terrain3d.simulate.sensor import Pointing, PushbroomCamera, View, camera_over, draw_pointing, fit_rpc
from terrain3d.simulate.world import CENTRE, REFERENCE

CRS = REFERENCE.horizontal
X, Y = CENTRE
GRID = Grid.from_bounds(REFERENCE, X - 400, Y - 400, X + 400, Y + 400, 1.0)
THREE = (12.0, -1.0, -14.0)
NO_ERROR = Pointing((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0)


@dataclass(frozen=True)
class Shot:
    """The exact camera of a view, and the one that its RPC describes."""

    exact: PushbroomCamera
    delivered: Camera


def shots(along_deg: tuple[float, ...], seed: int, *, heading: tuple[float, ...] | None = None) -> list[Shot]:
    """Views of one place from several angles along the flight, each with its own pointing error of some pixels."""
    rng = np.random.default_rng(seed)
    found = []
    for i, along in enumerate(along_deg):
        view = View(along, float(rng.normal(0, 2)), 191.0 if heading is None else heading[i])
        exact = camera_over(GRID, 540.0, view, 0.5)
        rpc = fit_rpc(exact, draw_pointing(rng, exact.lines), CRS, (500.0, 600.0))
        found.append(Shot(exact, Camera(rpc)))
    return found


def ground(n: int, seed: int) -> NDArray[np.float64]:
    """Points (n, 3) easting, northing, height on hilly ground."""
    rng = np.random.default_rng(seed)
    x, y = X + rng.uniform(-380, 380, n), Y + rng.uniform(-380, 380, n)
    return np.column_stack([x, y, 540 + 20 * np.sin(x / 90) + rng.uniform(0, 10, n)])


def observe(views: list[Shot], points: NDArray[np.float64], noise_px: float = 0.0, seed: int = 0) -> Ties:
    """Every point as the exact cameras see it, with noise."""
    rng, n = np.random.default_rng(seed), len(points)
    places = [v.exact.project(*points.T) for v in views]
    line, sample = (np.concatenate([p[k] for p in places]) + rng.normal(0, noise_px, n * len(views)) for k in (0, 1))
    return Ties(np.repeat(np.arange(len(views)), n), np.tile(np.arange(n), len(views)), line, sample)


def disagreement(views: list[Shot], cameras: tuple[Camera, ...] | list[Camera]) -> float:
    """RMS by which exact rays of fresh points miss each other in the images of the given cameras, px."""
    ties = observe(views, ground(400, 99))
    points = intersect(list(cameras), ties, 540.0)
    misses = []
    for i, camera in enumerate(cameras):
        mine = ties.view == i
        line, sample = camera.project(*points[ties.track[mine]].T)
        misses += [ties.line[mine] - line, ties.sample[mine] - sample]
    return float(np.sqrt((np.concatenate(misses) ** 2).mean()))


def height_error(views: list[Shot], cameras: tuple[Camera, ...] | list[Camera]) -> NDArray[np.float64]:
    points = ground(400, 99)
    return intersect(list(cameras), observe(views, points), 540.0)[:, 2] - points[:, 2]


def corrections(adjustment: Adjustment) -> NDArray[np.float64]:
    """(views, 2, 3): line and sample; bias and two drifts."""
    return np.array([[c.correction.line, c.correction.sample] for c in adjustment.cameras])


def test_intersect__is_exact() -> None:
    points = ground(200, 1)
    views = [replace(s, delivered=Camera(fit_rpc(s.exact, NO_ERROR, CRS, (500.0, 600.0)))) for s in shots(THREE, 1)]
    lon, lat, height = intersect([v.delivered for v in views], observe(views, points), 540.0).T
    x, y = from_lonlat(CRS, lon, lat)
    np.testing.assert_allclose(np.column_stack([x, y, height]), points, atol=2e-3)  # the fit of the RPC is the limit


def test_intersect__weight_zero_is_not_there() -> None:
    views = shots(THREE, 2)
    cameras = [v.delivered for v in views]
    ties = observe(views, ground(20, 2))
    spoilt = replace(ties, line=np.where(ties.view == 1, ties.line + 50, ties.line))
    weight = np.where(ties.view == 1, 1e-12, 1.0)
    two = observe([views[0], views[2]], ground(20, 2))
    expected = intersect([cameras[0], cameras[2]], two, 540.0)
    np.testing.assert_allclose(intersect(cameras, spoilt, 540.0, weight)[:, 2], expected[:, 2], atol=1e-3)


@pytest.mark.parametrize("seed", [0, 2])
def test_adjust__exact_ties_take_out_the_relative_error(seed: int) -> None:
    views = shots(THREE, seed)
    assert disagreement(views, [v.delivered for v in views]) > 0.4
    found = adjust([v.delivered for v in views], observe(views, ground(200, seed)), 540.0)
    assert found.converged and found.used.all()
    assert disagreement(views, found.cameras) < 0.025  # a bent drift, which the model leaves, is all that remains
    assert max(found.rms_after_px) < 0.03 < 0.3 < min(found.rms_before_px)


def test_adjust__noise_averages_out() -> None:
    views = shots(THREE, 3)
    found = adjust([v.delivered for v in views], observe(views, ground(200, 3), 0.2), 540.0)
    assert disagreement(views, found.cameras) < 0.05
    # of 6 observations a point takes 3: the residuals of noise 0.2 are 0.2 * sqrt(1/2)
    np.testing.assert_allclose(found.rms_after_px, 0.2 * 0.5**0.5, rtol=0.15)


@pytest.mark.parametrize("seed", [0, 1])
def test_adjust__a_fifth_of_wrong_ties_does_no_harm(seed: int) -> None:
    views, n = shots(THREE, seed), 200
    ties = observe(views, ground(n, seed), 0.2, seed)
    rng = np.random.default_rng(seed)
    tracks = rng.permutation(n)[: n // 5]
    bad = tracks + n * rng.integers(0, 3, len(tracks))
    angle, far = rng.uniform(0, 2 * np.pi, len(bad)), rng.uniform(5, 60, len(bad))
    ties.line[bad] += far * np.cos(angle)
    ties.sample[bad] += far * np.sin(angle)
    found = adjust([v.delivered for v in views], ties, 540.0)
    assert disagreement(views, found.cameras) < 0.05
    assert found.used[bad].mean() < 0.1
    whole = ~np.isin(ties.track, tracks)
    assert found.used[whole].mean() > 0.98


def test_adjust__views_of_other_headings() -> None:
    views = shots((10.0, 0.0, -12.0), 5, heading=(191.0, 11.0, 100.0))
    found = adjust([v.delivered for v in views], observe(views, ground(200, 5), 0.1), 540.0)
    assert disagreement(views, found.cameras) < 0.05


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize(("along", "n"), [((10.0, -5.0), 200), ((1.0, -1.0), 200), ((1.0, -1.0), 15)])
def test_adjust__weak_networks_keep_their_datum(along: tuple[float, float], n: int, seed: int) -> None:
    """Two views, down to a base of 0.03 of the height: what ties cannot tell stays as the RPCs had it."""
    views = shots(along, seed)
    delivered = [v.delivered for v in views]
    found = adjust(delivered, observe(views, ground(n, seed), 0.2, seed), 540.0)
    assert disagreement(views, found.cameras) < 0.06
    size = np.abs(corrections(found))
    assert size[..., 0].max() < 5 and size[..., 1:].max() < 0.8
    pixel_in_height = 0.5 / abs(np.subtract(*np.tan(np.radians(along))))
    moved = np.median(height_error(views, found.cameras)) - np.median(height_error(views, delivered))
    assert abs(moved) < 0.1 * pixel_in_height  # less than a tenth of a pixel along the epipolar line
    before, after = (np.ptp(np.percentile(height_error(views, c), [2, 98])) for c in (delivered, found.cameras))
    assert after < before + 0.1 * pixel_in_height


def test_adjust__covariance_shrinks_where_ties_tell() -> None:
    views = shots(THREE, 6)
    few, many = (
        adjust([v.delivered for v in views], observe(views, ground(n, 6), 0.3, 6), 540.0).covariance for n in (15, 120)
    )
    prior = np.tile([BIAS_SIGMA_PX, DRIFT_SIGMA_PX, DRIFT_SIGMA_PX], 6)
    for covariance in (few, many):
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-9)
        assert np.linalg.eigvalsh(covariance).min() > 0
        assert (np.sqrt(np.diag(covariance)) <= prior * 1.0001).all()
    # of the biases: some combination every tie tells of, and one that none does, which is where the model lies
    biases = np.ix_(range(0, 18, 3), range(0, 18, 3))
    sigma = [np.sqrt(np.linalg.eigvalsh(c[biases])) for c in (few, many)]
    assert sigma[1][0] < 0.7 * sigma[0][0] < 0.1
    assert sigma[1][-1] > 0.95 * BIAS_SIGMA_PX


def test_adjust__starts_anew_from_corrected_cameras() -> None:
    views = shots(THREE, 7)
    ties = observe(views, ground(100, 7))
    once = adjust([v.delivered for v in views], ties, 540.0)
    twice = adjust(list(once.cameras), ties, 540.0)
    np.testing.assert_allclose(corrections(twice), corrections(once), atol=1e-9)


def shaken(ties: Ties, amplitude_px: float, period: float) -> Ties:
    """Ties in images whose lines swing, each image with phases of its own."""
    phase = np.random.default_rng(8).uniform(0, 6, (ties.view.max() + 1, 2))[ties.view]
    swing = amplitude_px * np.sin(2 * np.pi * ties.line[:, None] / period + phase)
    return replace(ties, line=ties.line + swing[:, 0], sample=ties.sample + swing[:, 1])


def disagreement_shaken(views: list[Shot], cameras: tuple[Camera, ...], amplitude_px: float, period: float) -> float:
    ties = shaken(observe(views, ground(400, 99)), amplitude_px, period)
    points = intersect(list(cameras), ties, 540.0)
    seen = np.array([cameras[i].project(*points[t]) for i, t in zip(ties.view, ties.track, strict=True)])
    return float(np.sqrt(((seen - np.column_stack([ties.line, ties.sample])) ** 2).mean()))


@pytest.mark.parametrize(
    ("along", "period"),
    [
        ((10.0, -8.0), 700.0),
        pytest.param(THREE, 700.0, marks=pytest.mark.slow),
        pytest.param(THREE, 400.0, marks=pytest.mark.slow),
    ],
)
def test_jitter__is_taken_out_and_the_datum_stays(along: tuple[float, ...], period: float) -> None:
    views = shots(along, 4)
    ties = shaken(observe(views, ground(700, 4), 0.2), 0.3, period)
    before = adjust([v.delivered for v in views], ties, 540.0)
    after = follow_jitter(before, ties, [True] * len(views))
    assert after.along >= 6 and after.converged
    rough, fine = (disagreement_shaken(views, a.cameras, 0.3, period) for a in (before, after))
    assert fine < 0.5 * rough and fine < 0.08
    assert max(after.rms_after_px) < min(before.rms_after_px)
    moved = after.points[:, 2] - before.points[:, 2]
    assert abs(np.median(moved)) < 0.05  # metres
    assert after.covariance.shape[0] == len(views) * 2 * (3 + after.along)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_jitter__is_not_seen_in_noise(seed: int) -> None:
    views = shots(THREE, seed)
    ties = observe(views, ground(600, seed), 0.25, seed)
    found = adjust([v.delivered for v in views], ties, 540.0)
    assert along_terms(found, ties) == 0
    assert follow_jitter(found, ties, [True] * 3) is found


def test_jitter__needs_ties_enough() -> None:
    views = shots(THREE, 4)
    ties = shaken(observe(views, ground(40, 4), 0.2), 0.3, 700.0)
    assert along_terms(adjust([v.delivered for v in views], ties, 540.0), ties) == 0


def test_adjust__drift_is_held_where_told() -> None:
    views = shots(THREE, 3)
    found = adjust([v.delivered for v in views], observe(views, ground(100, 3)), 540.0, drift=[True, False, True])
    size = np.abs(corrections(found))[..., 1:].max(axis=(1, 2))
    assert size[1] < 0.01 < 0.05 < min(size[0], size[2])


@pytest.mark.slow
def test_height_sigma__agrees_with_trials() -> None:
    """Pointing errors drawn from the priors, ties with noise: errors of heights and of heights against the model's
    plane have the stated sigma."""
    exact = [Camera(fit_rpc(s.exact, NO_ERROR, CRS, (500.0, 600.0))) for s in shots(THREE, 1)]
    rng, points, places = np.random.default_rng(0), ground(60, 5), ground(30, 9)
    plane = lambda p: np.column_stack([np.ones(len(p)), p[:, 0] - X, p[:, 1] - Y])  # noqa: E731
    total, relative, stated = [], [], []
    for _ in range(60):
        true = [c.corrected(Correction.of(*rng.normal(0, [8.0, 1.5, 1.5], (2, 3)))) for c in exact]
        seen = [np.array(c.project(*to_lonlat(CRS, *points[:, :2].T), points[:, 2])) for c in true]
        noisy = np.concatenate(seen, axis=1) + rng.normal(0, 0.3, (2, 180))
        ties = Ties(np.repeat(np.arange(3), 60), np.tile(np.arange(60), 3), *noisy)
        found = adjust(exact, ties, 540.0, iterations=8)
        model = intersect(list(found.cameras), replace(ties, line=np.concatenate(seen, axis=1)[0],
                          sample=np.concatenate(seen, axis=1)[1]), 540.0)[:, 2] - points[:, 2]  # fmt: skip
        common = np.linalg.lstsq(plane(points), model, rcond=None)[0]
        two = [np.array(c.project(*to_lonlat(CRS, *places[:, :2].T), places[:, 2])) for c in true[:2]]
        pair = Ties(np.repeat([0, 1], 30), np.tile(np.arange(30), 2), *np.concatenate(two, axis=1))
        error = intersect(list(found.cameras[:2]), pair, 540.0)[:, 2] - places[:, 2]
        total.append(error)
        relative.append(error - plane(places) @ common)
        sigma = height_sigma(found, (0, 1), CRS, *places.T)
        stated.append((np.median(sigma.total), np.median(sigma.relative)))
    for errors, sigma in zip((total, relative), np.median(stated, axis=0), strict=True):
        assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(sigma, rel=0.2)
    # all views together are the model, so only bends are left of them
    assert np.median(height_sigma(found, (0, 1, 2), CRS, *places.T).relative) < 0.03
