"""Batches by token budget: complete, within budget, almost free of padding, and the same for any number of processes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainpipe_assets.training.batching import cut_by_budget, padded_tokens, plan_batches, plan_scoring, share_of

many_lengths = st.lists(st.integers(1, 200), min_size=1, max_size=120).map(np.array)
budgets = st.integers(1, 1000)
seeds = st.integers(0, 2**31 - 1)


@given(many_lengths, budgets, seeds, st.integers(0, 50))
def test_every_example_is_in_exactly_one_batch(lengths: NDArray[np.int64], budget: int, seed: int, epoch: int) -> None:
    batches = plan_batches(lengths, budget, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))


@given(many_lengths, budgets, seeds)
def test_a_batch_fits_its_budget_or_is_a_single_example(lengths: NDArray[np.int64], budget: int, seed: int) -> None:
    for batch in plan_batches(lengths, budget, seed, epoch=0):
        assert len(batch) == 1 or padded_tokens(batch, lengths) <= budget
        assert list(lengths[batch]) == sorted(lengths[batch])


@given(many_lengths, budgets)
def test_a_run_ends_only_where_the_next_example_does_not_fit(lengths: NDArray[np.int64], budget: int) -> None:
    runs = cut_by_budget(np.argsort(lengths), lengths, budget)
    for run, following in pairwise(runs):
        assert lengths[following[0]] * (len(run) + 1) > budget


@given(many_lengths, budgets, seeds)
def test_a_plan_is_a_function_of_its_arguments_and_its_number_of_steps_of_none_but_the_budget(
    lengths: NDArray[np.int64], budget: int, seed: int
) -> None:
    first, again, next_epoch = (plan_batches(lengths, budget, seed, epoch) for epoch in (0, 0, 1))
    assert [list(batch) for batch in first] == [list(batch) for batch in again]
    assert len(next_epoch) == len(first)


@given(many_lengths, budgets, st.integers(1, 8))
def test_the_shares_of_the_processes_make_up_the_batch(lengths: NDArray[np.int64], budget: int, processes: int) -> None:
    for batch in plan_batches(lengths, budget, seed=0, epoch=0):
        shares = [share_of(batch, rank, processes) for rank in range(processes)]
        assert sorted(np.concatenate(shares)) == sorted(batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_epochs_and_seeds_differ_in_order_and_company() -> None:
    lengths = np.random.default_rng(0).integers(5, 30, 500)
    plans = [plan_batches(lengths, 512, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    together = [{frozenset(batch.tolist()) for batch in plan} for plan in plans]
    assert len(together[0] & together[1]) < len(plans[0]) // 4
    assert len(together[0] & together[2]) < len(plans[0]) // 4


def test_padding_is_almost_nothing() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(3, 0.5, 8000), 4, 128).astype(np.int64)
    batches = plan_batches(lengths, 1024, seed=0, epoch=0)
    assert lengths.sum() / sum(padded_tokens(batch, lengths) for batch in batches) > 0.98


def test_batches_come_in_no_order_of_length() -> None:
    lengths = np.arange(1, 401)
    longest = [lengths[batch].max() for batch in plan_batches(lengths, 2000, seed=0, epoch=0)]
    assert longest != sorted(longest)
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.5


def test_scoring_starts_with_the_largest_batch_and_omits_nothing() -> None:
    lengths = np.array([3, 9, 4, 9, 30])
    batches = plan_scoring(lengths, 20)
    assert list(batches[0]) == [4]
    assert sorted(np.concatenate(batches)) == [0, 1, 2, 3, 4]


@given(many_lengths, st.integers(1, 5000))
def test_hardly_any_of_what_is_scored_is_padding(lengths: NDArray[np.int64], budget: int) -> None:
    batches = plan_scoring(lengths, budget)
    sizes = [padded_tokens(batch, lengths) for batch in batches]
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert sizes == sorted(sizes, reverse=True)
    for batch, size in zip(batches, sizes, strict=True):
        assert len(batch) == 1 or (size <= budget and size - lengths[batch].sum() <= budget / 64)


@pytest.mark.parametrize("budget", [1, 7, 8, 9])
def test_an_example_longer_than_the_budget_is_alone(budget: int) -> None:
    assert [list(run) for run in cut_by_budget(np.arange(3), np.array([4, 4, 10]), budget)][-1] == [2]
