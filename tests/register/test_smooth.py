"""Height errors of a model as a random field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from terrain3d.adjust.pointing import USUAL_TILT
from terrain3d.register import smooth
from terrain3d.register.lines import Lines
from terrain3d.register.smooth import Candidate, Observations, candidates, estimate, height_prior, thinned

NORTH = Lines((0.0, 1.0))
TRACKS = np.linspace(-300, 300, 6)


def along_tracks(rng: np.random.Generator, error: np.ndarray | float = 0.0, noise: float = 0.15) -> Observations:
    """Six tracks to the north, a return every 20 m."""
    east, north = (a.ravel() for a in np.meshgrid(TRACKS, np.arange(-340, 341, 20.0), indexing="ij"))
    east = east + 0.1 * north
    track = np.repeat(np.arange(6, dtype=np.int32), len(east) // 6)
    height = error + rng.normal(0, noise, len(east))
    level, usual = np.zeros((len(east), 2)), np.full(len(east), smooth.TRACK_SIGMA)
    return Observations(east, north, height, np.full(len(east), noise), level, level, track, usual)


def folds(observed: Observations) -> list[np.ndarray]:
    return [observed.track == t for t in range(6)]


def places() -> np.ndarray:
    return np.array([(x, y) for x in (-250.0, 0.0, 250.0) for y in np.arange(-300, 301, 50.0)])


def test_estimate__is_the_formula() -> None:
    rng = np.random.default_rng(0)
    observed = along_tracks(rng, 2.0)
    model = Candidate(0.2, 0.5, 120.0, NORTH, 1.0)
    found = estimate(observed, [model], places())
    at = np.column_stack([observed.east, observed.north])
    design, target = (np.column_stack([np.ones(len(p)), p]) for p in (at, places()))
    prior = height_prior(observed, NORTH)
    same = observed.track[:, None] == observed.track
    k = model.between(at, at) + design @ prior @ design.T + smooth.TRACK_SIGMA**2 * same + 0.15**2 * np.eye(len(at))
    cross = model.between(places(), at) + target @ prior @ design.T
    own = np.diag(model.between(places(), places()) + target @ prior @ target.T)
    assert found.total == pytest.approx(cross @ np.linalg.solve(k, observed.height), abs=1e-6)
    assert found.variance == pytest.approx(own - np.diag(cross @ np.linalg.solve(k, cross.T)), abs=1e-6)
    covariance = prior - prior @ design.T @ np.linalg.solve(k, design @ prior)
    assert found.covariance == pytest.approx(covariance, abs=1e-5)


def test_estimate__returns_to_the_plane_away_from_tracks() -> None:
    rng = np.random.default_rng(1)
    observed = along_tracks(rng, 1.0)
    bump = 0.5 * np.exp(-(observed.east**2 + observed.north**2) / (2 * 100**2))
    observed = replace(observed, height=observed.height + bump)
    model = Candidate(0.4, 0.0, 80.0, NORTH, 1.0)
    found = estimate(observed, [model], np.array([(0.0, 0.0), (2000.0, 0.0)]))
    plane = found.heights[0] + np.array([0.0, 2000.0]) * found.heights[1]
    assert found.total - plane == pytest.approx([0.45, 0.0], abs=0.15)
    assert found.variance[1] > 0.4**2 > 4 * found.variance[0]


def test_candidates__tell_the_size_of_a_bend() -> None:
    rng = np.random.default_rng(2)
    observed = along_tracks(rng)
    bent = replace(observed, height=observed.height + 0.4 * np.sin(observed.north / 80))
    for o, low, high in ((observed, 0.0, 0.1), (bent, 0.15, 0.5)):
        models = candidates(o, folds(o), 700.0, NORTH)
        assert sum(m.chance for m in models) == pytest.approx(1.0)
        assert low < np.sqrt(sum(m.chance * m.size**2 for m in models)) < high
    # that it runs along the lines is seen, too
    assert sum(m.chance for m in models if m.share > 0) > 0.9


def test_field__sigma_is_that_of_draws() -> None:
    normalized = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        tilt, size, wave = rng.normal(0, USUAL_TILT[::-1]), 0.12 * rng.normal(), rng.uniform(60, 120)

        def error(east, north, tilt=tilt, size=size, wave=wave):  # type: ignore[no-untyped-def]
            return tilt[0] * east + tilt[1] * north + size * np.sin(north / wave)

        observed = along_tracks(rng)
        height = observed.height + error(observed.east, observed.north)
        observed = replace(observed, height=height + rng.normal(0, 0.03, 6)[observed.track])
        found = estimate(observed, candidates(observed, folds(observed), 700.0, NORTH), places())
        normalized.append((found.total - error(*places().T)) / np.sqrt(found.variance))
    assert 0.6 < np.sqrt(np.mean(np.square(normalized))) < 1.3


def test_height_prior__a_large_tilt_is_not_held_back() -> None:
    rng = np.random.default_rng(3)
    level = along_tracks(rng)
    tilted = replace(level, height=level.height + 0.004 * level.east)
    along, across = USUAL_TILT
    assert np.sqrt(np.diag(height_prior(level, NORTH))[1:]) == pytest.approx([across, along], rel=0.1)
    assert height_prior(tilted, NORTH)[1, 1] > 0.004**2
    found = estimate(tilted, candidates(tilted, folds(tilted), 700.0, NORTH), places())
    assert found.heights[1] == pytest.approx(0.004, abs=2e-4)


def test_height_prior__turns_with_the_lines() -> None:
    level = along_tracks(np.random.default_rng(6))
    north, east, slant = (height_prior(level, Lines(a))[1:, 1:] for a in ((0.0, 1.0), (1.0, 0.0), (0.6, 0.8)))
    assert np.diag(east) == pytest.approx(np.diag(north)[::-1], rel=0.1)
    assert np.linalg.eigvalsh(slant) == pytest.approx(np.linalg.eigvalsh(north), rel=0.1)
    assert np.abs(np.linalg.eigh(slant)[1][:, 1]) == pytest.approx([0.6, 0.8])


def test_height_prior__is_that_of_the_images_where_it_is_known() -> None:
    level, tilt = along_tracks(np.random.default_rng(6)), np.array([[4e-8, 1e-8], [1e-8, 9e-8]])
    known = height_prior(level, Lines(tilt=tilt))[1:, 1:]
    np.testing.assert_allclose(known / known[0, 0], tilt / tilt[0, 0])
    assert known[0, 0] == pytest.approx(4e-8, rel=0.3)


def test_slope__a_displaced_beam_says_little_of_the_height() -> None:
    """Ground rises east and west of the track alike: only the displacement common to the beam hides the height."""
    rng = np.random.default_rng(4)
    observed = along_tracks(rng)
    hill = np.column_stack([np.where(observed.north > 0, 0.5, -0.5), np.zeros(len(observed.north))])
    model = [Candidate(0.05, 0.0, 100.0, NORTH, 1.0)]
    told, hidden = (
        estimate(replace(observed, slope=7.0 * s), model, np.zeros((1, 2))).variance[0]
        for s in (hill, np.abs(hill))
    )  # fmt: skip
    assert np.sqrt(told) < 0.2 < 1.0 < np.sqrt(hidden)
    assert np.sqrt(hidden) == pytest.approx(7.0 * 0.5 / np.sqrt(6), rel=0.1)


def test_thinned__keeps_tracks_and_means() -> None:
    rng = np.random.default_rng(5)
    parts = [along_tracks(rng, 1.0) for _ in range(8)]
    names = ("east", "north", "height", "sigma", "slope", "sideways")
    joined = Observations(
        *(np.concatenate([getattr(p, n) for p in parts]) for n in names),
        np.concatenate([p.track + 6 * k for k, p in enumerate(parts)]).astype(np.int32),
        np.concatenate([(k + 1) * p.offset for k, p in enumerate(parts)]),
    )
    few = thinned(joined)
    assert len(few.height) <= 480 < len(joined.height) and set(few.track) == set(joined.track)
    assert few.height.mean() == pytest.approx(1.0, abs=0.02) and np.all(few.sigma < 0.15)
    assert few.offset == pytest.approx(smooth.TRACK_SIGMA * (1 + few.track // 6))
    assert thinned(parts[0]) is parts[0]
