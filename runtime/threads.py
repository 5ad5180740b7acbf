"""Processors, and work shared out to threads: PyTorch lets go of Python's lock, so they run at once."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

MOST = 8  # threads: each holds arrays of its own

A = TypeVar("A")
B = TypeVar("B")


def processors() -> int:
    """How many this process may use, where the system says it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`work` of every item, in the items' order, by as many threads as PyTorch may use, at most `MOST`.

    Within a thread PyTorch works alone, so what comes out does not depend on how many there are. No more results wait
    than there are threads. An error of `work` is raised where its result would have come.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, items)
        return
    workers, waiting = min(threads, MOST), deque()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # threads that start from now on take it over
