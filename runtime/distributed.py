"""Several processes on one job, as torchrun starts them: each takes its share, and what they find is put together."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from runtime.errors import InputError

T = TypeVar("T")
LOCAL_SIZE = "LOCAL_WORLD_SIZE"


def join() -> None:
    """Join the other processes of this job if torchrun started us. Only the main process goes on printing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_cuda else "gloo")
    if not main_process():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  (open until the process ends)


def refuse(script: str) -> None:
    """Raise InputError if torchrun started us: every process would write the same files."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"{script} works as one process: start it with python, not with torchrun")


def rank() -> int:
    """Which of the processes this is; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are; 1 alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_size() -> int:
    """How many processes of this job are on this machine, as torchrun says it; 1 alone."""
    said = os.environ.get(LOCAL_SIZE, "1")
    return max(1, int(said)) if said.isdecimal() else 1


def main_process() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block first: it fetches or makes what the others then find."""
    if not main_process():
        dist.barrier()
    yield
    if main_process() and world_size() > 1:
        dist.barrier()


def shard(items: Sequence[T]) -> Sequence[T]:
    """This process's items: every `world_size`-th."""
    return items[rank() :: world_size()]


def gather(rows: Tensor | None, count: int) -> Tensor | None:
    """The `count` rows of all processes in their order, of which `shard` gave this one its own."""
    if world_size() == 1 or rows is None:
        return rows
    parts: list[Tensor | None] = [None] * world_size()
    dist.all_gather_object(parts, rows)
    whole = rows.new_empty(count, *rows.shape[1:])
    for number, part in enumerate(parts):
        whole[number :: world_size()] = part
    return whole


def anywhere(asked: bool) -> bool:
    """Whether it is so in any process; all must ask at the same place."""
    if world_size() == 1:
        return asked
    flag = torch.tensor(int(asked), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(flag)
    return bool(flag)


def of_main(make: Callable[[], T]) -> T:
    """What the main process makes, in all of them; a fault of it is one in all."""
    if world_size() == 1:
        return make()
    made: list[object] = [None, None]
    if main_process():
        try:
            made[0] = make()
        except InputError as fault:
            made[1] = str(fault)
    dist.broadcast_object_list(made)
    if made[1] is not None:
        raise InputError(made[1])
    return made[0]


def all_reduce(parameters: Iterable[Parameter], loss: Tensor) -> Tensor:
    """Sum gradients in place, and the loss (), over all processes. A parameter without gradient counts as zero."""
    if world_size() == 1:
        return loss
    parameters = list(parameters)
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    flat = torch.cat([loss.view(1), *(gradient.flatten() for gradient in gradients)])
    dist.all_reduce(flat)
    summed = flat[1:].split([one.numel() for one in parameters])
    for one, gradient in zip(parameters, summed, strict=True):
        one.grad = gradient.view_as(one)
    return flat[0].clone()  # a view would keep all gradients in memory
