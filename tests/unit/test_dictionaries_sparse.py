"""Choosing entries and sums over them, against torch's dense operations."""

import pytest
import torch

from actspace.dictionaries.sae import sparse


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "k"), [(1000, 3), (1003, 7), (64, 1), (30, 30), (4608, 32)])
def test_the_top_of_each_row_is_that_of_topk(n, k):
    p = gaussian(20, n)
    values, columns = sparse.top_of_rows(p, k)
    torch.testing.assert_close(p.gather(1, columns), values, atol=0, rtol=0)
    torch.testing.assert_close(values.sort(1).values, p.topk(k).values.sort(1).values, atol=0, rtol=0)


@pytest.mark.parametrize("count", [1, 7, 300, 2999, 3000, 5000])
def test_the_smallest_of_the_top_is_that_of_a_full_sort(count):
    p = gaussian(30, 100)
    expected = p.flatten().sort(descending=True).values[min(count, 3000) - 1]
    assert float(sparse.smallest_of_top(p, count)) == float(expected)


def test_entries_above_a_value_are_positive_and_in_row_order():
    p = gaussian(30, 100)
    entries, values = sparse.above(p, torch.tensor(-0.5, dtype=torch.float64))
    assert torch.equal(torch.stack([entries.rows, entries.latents], 1), (p > 0).nonzero())
    assert torch.equal(values, p[p > 0])


def test_sums_over_entries_are_products_with_the_dense_matrix():
    dense = gaussian(30, 100) * (gaussian(30, 100, seed=1) > 1)
    dense[7] = 0  # a row without entries
    dense[:, 9] = 0
    rows, latents = dense.nonzero(as_tuple=True)
    entries = sparse.Entries(latents, rows, 30, 100)
    weight, x = gaussian(100, 8, seed=2), gaussian(30, 8, seed=3)
    torch.testing.assert_close(entries.sum_by_row(dense[rows, latents], weight), dense @ weight)
    torch.testing.assert_close(entries.sum_by_latent(dense[rows, latents], x), dense.T @ x)


def test_straight_through_gradients_are_those_of_the_rectangle_kernel():
    p = torch.tensor([1.0, 1.04, 0.97, 0.5], dtype=torch.float64, requires_grad=True)
    theta = torch.full((4,), 1.01, dtype=torch.float64, requires_grad=True)
    latents, fires = sparse.Jump.apply(p, theta, 0.05), sparse.Fires.apply(p, theta, 0.05)
    assert latents.tolist() == [0, 1.04, 0, 0]
    assert fires.tolist() == [0, 1, 0, 0]
    latents.sum().backward()
    assert p.grad.tolist() == [0, 1, 0, 0]
    assert theta.grad.tolist() == pytest.approx([-1.01 / 0.05, 0, 0, 0])
    theta.grad = None
    fires.sum().backward()
    assert theta.grad.tolist() == pytest.approx([-1 / 0.05, 0, 0, 0])
