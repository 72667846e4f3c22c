"""The picture of mined triplets."""

import numpy as np
import pytest

from facenet_fast.report.thumbnails import choose_triplets, triplet_grid


def test_the_hardest_the_median_and_random_ones_are_shown_once_each():
    rng = np.random.default_rng(0)
    d_ap, d_an = rng.random(101), rng.random(101)
    chosen = choose_triplets(d_ap, d_an, seed=1)
    assert [kind for kind, _ in chosen] == ["hardest"] * 2 + ["median"] * 2 + ["random"] * 2
    rows = [row for _, row in chosen]
    assert len(set(rows)) == 6
    ranks = [int((d_ap - d_an > (d_ap - d_an)[row]).sum()) for row in rows]
    assert ranks[:2] == [0, 1]
    assert 48 <= ranks[2] < ranks[3] <= 52
    assert choose_triplets(d_ap, d_an, seed=1) == chosen
    assert choose_triplets(d_ap, d_an, seed=2)[4:] != chosen[4:]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_triplets_make_few_rows(n):
    d_ap = np.linspace(0, 1, n)
    rows = [row for _, row in choose_triplets(d_ap, np.ones(n), seed=0)]
    assert sorted(rows) == list(range(n))


def test_the_grid_shows_each_triplets_images_in_their_columns():
    # Every image is of a colour of its own, so that a thumbnail tells which it is.
    images = np.zeros((9, 24, 24, 3), np.uint8)
    images += (np.arange(9, dtype=np.uint8) * 25 + 20)[:, None, None, None]
    triplets = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    d_ap, d_an = np.array([0.25, 0.5, 0.75]), np.array([1.0, 1.0, 1.0])
    grid = triplet_grid(images, triplets, d_ap, d_an)
    order = [row for _, row in choose_triplets(d_ap, d_an, seed=0)]
    height = (grid.shape[0] - 18) // 3
    for number, row in enumerate(order):
        shown = [grid[18 + number * height + 40, 76 + column * 84 + 40, 0] for column in range(3)]
        assert shown == [images[image, 0, 0, 0] for image in triplets[row]]
        text = grid[18 + number * height + 80 : 18 + number * height + 94, 160:]
        assert (text < 100).any()
