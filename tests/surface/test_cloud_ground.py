from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from terrain3d.surface.cloud_ground import cloud_ground, ground_points, lowest_points


def test_ground_points__low_outliers_and_boxes() -> None:
    rng = np.random.default_rng(4)
    xy = rng.uniform(0, 150, (20000, 2))
    z = 100 + 0.2 * xy[:, 0] + rng.normal(0, 0.03, len(xy))
    box = (np.abs(xy[:, 0] - 75) < 12) & (np.abs(xy[:, 1] - 75) < 9)
    z[box] += 7
    low = rng.choice(np.flatnonzero(~box), 20, replace=False)
    z[low] -= 30
    ground = ground_points(np.column_stack([xy, z]))
    assert not ground[box].any()
    assert not ground[low].any()
    ordinary = ~box
    ordinary[low] = False
    assert ground[ordinary].mean() > 0.98
    assert ground_points(np.zeros((0, 3))).shape == (0,)


def test_ground_points__an_embankment_stays_and_a_hall_goes() -> None:
    rng = np.random.default_rng(5)
    xy = rng.uniform(0, 200, (40000, 2))
    z = 50 + 0.3 * np.maximum(xy[:, 0] - 100, 0) + rng.normal(0, 0.03, len(xy))
    bank = np.clip((14 - np.abs(xy[:, 1] - 50)) / 2, 0, 5)  # sides 1 : 2
    hall = (np.abs(xy[:, 0] - 40) < 25) & (np.abs(xy[:, 1] - 140) < 20)
    ground = ground_points(np.column_stack([xy, z + bank + 8 * hall]))
    assert ground[hall].mean() < 0.01
    assert ground[bank > 0].mean() > 0.95


def test_ground_points__a_hall_wider_than_the_openings_goes() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.uniform(0, 300, (2, 180_000))
    terrain = 2 * np.sin(x / 45) + 1.5 * np.cos(y / 60)
    hall = (np.abs(x - 150) < 100) & (np.abs(y - 150) < 75)
    z = np.where(hall, 12.0, terrain) + rng.normal(0, 0.05, x.shape)
    ground = ground_points(np.column_stack([x, y, z]))
    assert ground[hall].mean() < 0.01
    assert ground[~hall].mean() > 0.99


def test_cloud_ground__steep_forest_is_seen_through() -> None:
    rng = np.random.default_rng(6)
    xy = rng.uniform(0, 120, (200_000, 2))
    terrain = 100 + 0.8 * xy[:, 0] + 4 * np.sin(xy[:, 1] / 12)
    through = rng.random(len(xy)) < 0.03
    z = terrain + np.where(through, rng.normal(0, 0.05, len(xy)), rng.uniform(0.8, 18, len(xy)))
    found = cloud_ground(lowest_points(np.column_stack([xy, z]), 1.0, 0.0, 120.0, (120, 120)))
    row, column = np.mgrid[0:120, 0:120] + 0.5
    error = (found.surface - (100 + 0.8 * column + 4 * np.sin((120 - row) / 12)))[5:-5, 5:-5]
    assert np.sqrt((error**2).mean()) < 0.5
    assert abs(np.median(error)) < 0.2
    assert ground_points(np.column_stack([xy, z]))[through].mean() > 0.9


def test_cloud_ground__undergrowth_in_a_wide_layer_is_not_ground() -> None:
    rng = np.random.default_rng(7)
    xy = rng.uniform(0, 120, (300_000, 2))
    terrain = 100 + 0.8 * xy[:, 0] + 4 * np.sin(xy[:, 1] / 12)
    under = (np.abs(xy[:, 0] - 60) < 12) & (np.abs(xy[:, 1] - 60) < 12)
    through = rng.random(len(xy)) < np.where(under, 0.003, 0.02)
    tufts = rng.uniform(1.2, 3.5, (120, 120))[xy[:, 1].astype(int), xy[:, 0].astype(int)]
    growth = np.where(under, tufts + rng.exponential(1, len(xy)), rng.uniform(0.8, 18, len(xy)))
    z = terrain + np.where(through, rng.normal(0, 0.05, len(xy)), growth)
    found = cloud_ground(lowest_points(np.column_stack([xy, z]), 1.0, 0.0, 120.0, (120, 120)))
    row, column = np.mgrid[0:120, 0:120] + 0.5
    error = (found.surface - (100 + 0.8 * column + 4 * np.sin((120 - row) / 12)))[50:70, 50:70]
    assert np.sqrt((error**2).mean()) < 0.5  # 0.7 with small openings alone


def test_cloud_ground__of_ground_points_carries_the_landform_through_gaps() -> None:
    rng = np.random.default_rng(8)
    xy = rng.uniform(0, 120, (15_000, 2))
    xy = xy[np.hypot(xy[:, 0] - 60, xy[:, 1] - 56.5) > 10]  # a gap over a ridge
    z = 100 + 0.5 * xy[:, 0] + 8 * np.sin(xy[:, 1] / 12)
    points = lowest_points(np.column_stack([xy, z]), 1.0, 0.0, 120.0, (120, 120))
    found = cloud_ground(points, filtered=False)
    row, column = np.mgrid[0:120, 0:120] + 0.5
    error = np.abs(found.surface - (100 + 0.5 * column + 8 * np.sin((120 - row) / 12)))
    assert error[8:-8, 8:-8].max() < 0.8  # a membrane cuts 1.5 m off the ridge
    assert np.median(error[found.kept]) < 0.01


@pytest.mark.slow
def test_ground_points__isprs_samples_with_one_parameter_set(shared_data: Path) -> None:
    files = sorted((shared_data / "real" / "isprs").glob("samp*.txt"))
    if not files:
        pytest.skip("no ISPRS samples")
    errors, kappas = [], []
    for file in files:
        points = np.loadtxt(file)
        truth, got = points[:, 3] == 0, ground_points(points[:, :3])
        agree = float(np.mean(truth == got))
        chance = truth.mean() * got.mean() + (1 - truth.mean()) * (1 - got.mean())
        errors.append(100 * (1 - agree))
        kappas.append(100 * (agree - chance) / (1 - chance))
    assert np.mean(errors) < 4.2
    assert np.mean(kappas) > 84.8
