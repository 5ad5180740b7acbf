"""Work shared out to threads: its order, its errors, and what it leaves behind."""

from collections.abc import Iterator
from threading import Barrier, get_ident

import pytest
import torch

from runtime.threads import in_order


@pytest.fixture(params=[1, 2, 3])
def threads(request) -> Iterator[int]:
    """As many threads as PyTorch may use."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_items_order(threads):
    assert list(in_order(lambda item: item**2, range(20))) == [item**2 for item in range(20)]
    assert list(in_order(str, [])) == []


def test_as_many_work_at_once_as_pytorch_may_use(threads):
    together = Barrier(threads, timeout=20)  # breaks unless that many come at once

    def work(item: int) -> tuple[int, int]:
        together.wait()
        return get_ident(), torch.get_num_threads()

    found = list(in_order(work, range(2 * threads)))
    assert len({who for who, _ in found}) == threads
    assert {within for _, within in found} == {1}


def test_pytorch_has_its_threads_back(threads):
    list(in_order(str, range(3)))
    next(in_order(str, range(9)))  # and when nobody takes the rest
    assert torch.get_num_threads() == threads
    assert list(in_order(lambda _: torch.get_num_threads(), range(2))) == [1, 1]


def test_an_error_comes_where_its_result_would_have(threads):
    taken = []
    with pytest.raises(ZeroDivisionError):
        for value in in_order(lambda item: 6 // (3 - item), range(50)):
            taken.append(value)
    assert taken == [2, 3, 6] and torch.get_num_threads() == threads


def test_no_more_items_are_taken_than_threads_need(threads):
    taken = []

    def items() -> Iterator[int]:
        for item in range(50):
            taken.append(item)
            yield item

    next(in_order(str, items()))
    assert len(taken) <= threads + 1
