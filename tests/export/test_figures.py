from __future__ import annotations

import cv2
import numpy as np

from terrain3d.export.figures import (
    NO_VALUE,
    classes,
    colour,
    difference,
    grey,
    marked,
    png,
    relief,
    shaded,
    shrink,
    with_bar,
)


def test_shaded__flat_and_slopes() -> None:
    """Lambert: sin(altitude) on flat ground, 1 on a slope that faces the light square, 0 on one that looks away."""
    x, y = np.meshgrid(np.arange(20.0), np.arange(20.0))
    assert (shaded(np.zeros((20, 20)), 1.0, azimuth_deg=315)[..., 0] == int(255 * np.sin(np.pi / 4))).all()
    towards_west = shaded(2 * x, 2.0, azimuth_deg=270)  # rises 1 m a metre eastward: it faces west
    assert (towards_west[..., 0] >= 254).all() and (shaded(2 * x, 2.0, azimuth_deg=90) == 0).all()
    towards_north = shaded(y, 1.0, azimuth_deg=0)  # rises southward (row down): it faces north
    assert (towards_north[..., 0] >= 254).all() and (shaded(y, 1.0, azimuth_deg=180) <= 1).all()


def test_shaded__no_value_is_pale_and_finer_cells_are_steeper() -> None:
    z = np.random.default_rng(0).normal(size=(30, 30))
    z[4, 5] = np.nan
    picture = shaded(z, 1.0)
    assert picture.shape == (30, 30, 3) and tuple(picture[4, 5]) == NO_VALUE
    assert (picture == NO_VALUE).all(axis=2).sum() == 1  # the neighbours of the gap keep their shade
    assert shaded(z, 0.5)[8:].std() > shaded(z, 5.0)[8:].std()


def test_colour__ends_and_clipping() -> None:
    palette = ((0, 0, 0), (100, 100, 100), (200, 50, 0))
    out = colour(np.array([[-9.0, 0.0, 5.0, 10.0, 99.0, np.nan]]), 0, 10, palette)[0]
    assert tuple(out[0]) == tuple(out[1]) == (0, 0, 0) and tuple(out[3]) == tuple(out[4]) == (200, 50, 0)
    assert abs(int(out[2, 0]) - 100) <= 1 and tuple(out[5]) == NO_VALUE


def test_difference__is_symmetric_and_has_a_bar() -> None:
    values = np.array([[-2.0, 0.0, 2.0]] * 150)
    picture = difference(values, 2.0)
    blue, white, red = picture[75, :3].astype(int)
    assert blue[2] > blue[0] + 80 and red[0] > red[2] + 80 and white.min() > 240
    assert picture.shape[0] == 150 and picture.shape[1] > 3 + 50
    assert (picture[:, 3:] != 255).any()


def test_pictures__of_nothing() -> None:
    empty = np.full((40, 50), np.nan, np.float32)
    for picture in (relief(empty, 0.5), grey(empty), difference(empty)[:40, :50], colour(empty, 0, 1)):
        assert (picture == NO_VALUE).all()


def test_classes_and_bar() -> None:
    out = classes(np.array([[1, 2, 7]]), {1: (255, 0, 0), 2: (0, 255, 0)})
    assert [tuple(p) for p in out[0]] == [(255, 0, 0), (0, 255, 0), NO_VALUE]
    assert with_bar(out, ((0, 0, 0), (255, 255, 255)), 0, 1).shape[0] == 120


def test_shrink__mean_without_gaps() -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    values[0, 0] = np.nan
    small, step = shrink(values, 3)
    assert step == 2 and small.shape == (2, 3)
    np.testing.assert_allclose(small[0], [(1 + 6 + 7) / 3, np.mean([2, 3, 8, 9]), np.mean([4, 5, 10, 11])])
    assert shrink(values, 100)[1] == 1
    assert shrink(np.ones((1, 9)), 3)[0].shape == (1, 3)


def test_png__red_stays_red() -> None:
    picture = np.zeros((5, 7, 3), np.uint8)
    picture[..., 0] = 200
    data = png(picture)
    assert data[:4] == b"\x89PNG"
    assert tuple(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[0, 0]) == (0, 0, 200)  # blue first


def test_marked__draws_where_it_is_told() -> None:
    picture = np.full((60, 80, 3), 255, np.uint8)
    out = marked(
        picture, np.array([20.0, 200.0]), np.array([30.0, 5.0]), np.array([[[9, 8, 7]], [[1, 1, 1]]], np.uint8)
    )
    assert out[30, 20].tolist() == [9, 8, 7] and out[30, 60].tolist() == [255] * 3
    assert picture.min() == 255 and out.shape == picture.shape
