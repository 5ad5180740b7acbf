"""Linear layers on the CPU's widest vectors.

PyTorch's float32 products go to MKL, which leaves AVX-512 unused on AMD's processors. oneDNN, which PyTorch carries
too, uses it: less than half the time (benchmarks/speed.md). It adds in another order, so results agree to 1e-6. Where
MKL is as good, or absent, everything here is plain `F.linear`. PyTorch offers that product only under a private name:
before the first one it is compared with `F.linear`, and CLIPMPCAD_LINEAR=torch in the environment does without it.
"""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runtime.errors import InputError

SWITCH = "CLIPMPCAD_LINEAR"  # in the environment; "torch": `F.linear` alone
WIDE: bool | None = None  # whether oneDNN's products are taken; None: nobody asked yet


def wide() -> bool:
    """Whether oneDNN's products are taken here, settled at the first call.

    They are where they are the faster ones, unless the user switched them off or they fail the self-check, which one
    line on stderr then says. Raises InputError for a switch that is set to anything but "torch".
    """
    global WIDE
    if WIDE is None:
        switch = os.environ.get(SWITCH)
        if switch not in (None, "", "torch"):
            raise InputError(f"{SWITCH}={switch} means nothing; set it to torch, or leave it unset")
        WIDE = switch != "torch" and _faster() and _agrees()
    return WIDE


def _faster() -> bool:
    """Whether oneDNN's products are the faster ones on this machine."""
    vendor = platform.processor()  # on Windows
    with suppress(OSError):
        vendor = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:400]
    return (
        "AuthenticAMD" in vendor
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
    )


@torch.autocast("cpu", enabled=False)
@torch.no_grad()
def _agrees() -> bool:
    """The self-check: whether small products are those of `F.linear`, to as many roundings as they have summands."""
    x, weight, bias = (torch.arange(n, dtype=torch.float32, device="cpu").sin() for n in (6 * 64, 48 * 64, 48))
    x, weight = x.view(2, 3, 64), weight.view(48, 64)
    try:
        for given in ((x, weight, bias), (x, weight.view(64, 48).T, None)):
            found, expected = _product(*given), F.linear(*given)
            if not torch.allclose(found, expected, rtol=0, atol=64 * torch.finfo(found.dtype).eps):
                raise ValueError(f"it is off by {(found - expected).abs().max():.1g}")
    except (AttributeError, RuntimeError, TypeError, ValueError) as fault:  # a PyTorch that has it not, or otherwise
        why = (str(fault).splitlines() or [type(fault).__name__])[0]
        line = f"oneDNN's product fails its self-check ({why}); F.linear, slower here, is used"
        print(f"warning: {line}", file=sys.stderr)
        return False
    return True


def library() -> str:
    """Whose float32 products the linear layers are on a CPU: "oneDNN", "MKL", or what else PyTorch was built with."""
    return "oneDNN" if wide() else "MKL" if torch.backends.mkl.is_available() else "PyTorch's own BLAS"


@contextmanager
def plain() -> Iterator[None]:
    """`F.linear` everywhere: for exporting, where oneDNN's operator means nothing."""
    global WIDE
    before, WIDE = WIDE, False
    try:
        yield
    finally:
        WIDE = before


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K) by weight (N, K) and bias (N,) -> (..., N), differentiable like `F.linear`.

    Of a weight in 16 bits, the product is in 16 bits too, whatever x is in.
    """
    if weight.itemsize < x.itemsize:
        x = x.to(weight.dtype)
    single = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (single and x.device.type == "cpu" and x.numel() and wide()):
        return F.linear(x, weight, bias)
    given = [part for part in (x, weight, bias) if part is not None]
    if torch.is_grad_enabled() and any(part.requires_grad for part in given):
        return _Product.apply(x, weight, bias)
    return (_opaque if torch.compiler.is_compiling() else _product)(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` by way of `linear`."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        wide()  # the self-check comes before torch.compile, which would take it into its graph

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    bias = None if bias is None else bias.contiguous()  # the operator reads its numbers as if they were
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.custom_op("clipmpcad::product", mutates_args=())
def _opaque(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`_product` as torch.compile takes it: whole, since it would lower the bare operator for packed weights alone."""
    return _product(x, weight, bias)


@_opaque.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


class _Product(torch.autograd.Function):
    """`_product` with the gradients that are wanted: those of the frozen trunk's weights are not."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        wants = ctx.needs_input_grad
        ctx.save_for_backward(x if wants[1] else None, weight if wants[0] else None)
        return _product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, weight), wants = ctx.saved_tensors, ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])  # (M, N)
        return (
            _product(grad, weight.T) if wants[0] else None,
            _product(rows.T, x.reshape(-1, x.shape[-1]).T) if wants[1] else None,
            rows.sum(dim=0) if wants[2] else None,
        )
