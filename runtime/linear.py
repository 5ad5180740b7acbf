"""Linear layers by the products that are fastest on a CPU.

PyTorch's float32 products go to MKL, which leaves AVX-512 unused on AMD's processors. oneDNN, which PyTorch carries
too, uses it: less than half the time there (docs/speed.md). It adds in another order, so results agree to 1e-6. A trial
says once a machine whether it is taken (`runtime.trial`). Products in 16 bits are oneDNN's anyway; weights that
stay as they are, it wants laid out in its own way, which plain `F.linear` does anew at every call: `Packed` holds them
so. A CPU without units for 16 bits takes five times as long over them as over float32: there the numbers are rounded
alike and multiplied in float32.

Where nothing is won, everything here is plain `F.linear`. PyTorch offers those products only under private names:
before the first one they are compared with `F.linear`, and CLIPMPCAD_LINEAR=torch in the environment does without them.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runtime.errors import InputError
from runtime.trial import remembered

SWITCH = "CLIPMPCAD_LINEAR"  # in the environment; "torch": none of oneDNN's by private names
WIDE: bool | None = None  # whether oneDNN's float32 products are taken; None: nobody asked yet
PACKS: dict[torch.dtype, bool] = {}  # whether weights are packed, of the types that somebody asked for
UNITS = {torch.float32: True, torch.float64: True}  # whether a CPU computes in that type by itself, once asked
TRIED = 290, 1024, 512  # the trial's product: M, K, N; ViT-L has as many tokens at 240 pixels
WIDENED = 2**20  # numbers of a weight in 16 or 8 bits that are made float32 at once
MARGIN = 1.5  # how many times faster oneDNN must be; on AMD with AVX-512 it is 2.5 times, else 0.9 to 1.0


def wide() -> bool:
    """Whether oneDNN's float32 products are taken here, settled at the first call.

    They are where a trial found them the faster ones, unless the user switched them off or they fail the self-check,
    which one line on stderr then says. Raises InputError for a switch that is set to anything but "torch".
    """
    global WIDE
    if WIDE is None:
        WIDE = _switched_on() and _faster() and _agrees()
    return WIDE


def packs(dtype: torch.dtype) -> bool:
    """Whether weights of that type are held as oneDNN wants them here; as `wide`, of 16 bits, without a trial."""
    if dtype not in PACKS:
        PACKS[dtype] = has_units(dtype) and _switched_on() and _agrees(dtype)
    return PACKS[dtype]


def has_units(dtype: torch.dtype) -> bool:
    """Whether the processor computes in that type by itself."""
    if dtype not in UNITS:
        UNITS[dtype] = _has_units(dtype)
    return UNITS[dtype]


def _switched_on() -> bool:
    switch = os.environ.get(SWITCH)
    if switch not in (None, "", "torch"):
        raise InputError(f"{SWITCH}={switch} means nothing; set it to torch, or leave it unset")
    return switch != "torch" and torch.backends.mkldnn.is_available()


def _has_units(dtype: torch.dtype) -> bool:
    names = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    onednn = getattr(torch.ops.mkldnn, names[dtype], None) if dtype in names else None
    if onednn is None or not onednn():
        return False
    emulates = dtype == torch.bfloat16 and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return not emulates or getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()


@torch.inference_mode()
@torch.autocast("cpu", enabled=False)
def _faster() -> bool:
    """Whether oneDNN's float32 products are clearly the faster ones: some 50 ms, once a machine."""
    rows, inner, outer = TRIED
    x, weight = (torch.ones(n, inner, dtype=torch.float32, device="cpu") for n in (rows, outer))  # whatever is built
    calls = {"PyTorch": lambda: F.linear(x, weight), "oneDNN": lambda: _product(x, weight)}
    try:
        seconds = remembered("float32 linear", calls)
    except (AttributeError, RuntimeError, TypeError):  # a PyTorch that has it not, or otherwise: the self-check says so
        return True
    return seconds["PyTorch"] > MARGIN * seconds["oneDNN"]


@torch.autocast("cpu", enabled=False)
@torch.no_grad()
def _agrees(dtype: torch.dtype = torch.float32) -> bool:
    """The self-check: whether small products are those of `F.linear`, to as many roundings of the largest as they have
    summands."""
    x, weight, bias = (torch.arange(n, dtype=torch.float32, device="cpu").sin() for n in (6 * 64, 48 * 64, 48))
    x, weight, bias = x.view(2, 3, 64).to(dtype), weight.view(48, 64).to(dtype), bias.to(dtype)
    try:
        for given in ((x, weight, bias), (x, weight.view(64, 48).T, None)):
            expected = F.linear(*given)
            found = _product(*given) if dtype == torch.float32 else Packed(given[1], 6).product(x, given[2])
            roundings = 64 * torch.finfo(dtype).eps * float(expected.abs().max())
            if not torch.allclose(found, expected, rtol=0, atol=roundings):
                raise ValueError(f"it is off by {(found - expected).abs().max():.1g}")
    except (AttributeError, RuntimeError, TypeError, ValueError) as fault:  # a PyTorch that has it not, or otherwise
        why = (str(fault).splitlines() or [type(fault).__name__])[0]
        line = f"oneDNN's product fails its self-check ({why}); F.linear, slower here, is used"
        print(f"warning: {line}", file=sys.stderr)
        return False
    return True


def packing() -> bool:
    """Whether this process asked for packed weights in 16 bits and may have them."""
    return any(PACKS.values())


def library() -> str:
    """Whose float32 products the linear layers are on a CPU: "oneDNN", "MKL", or what else PyTorch was built with."""
    return "oneDNN" if wide() else "MKL" if torch.backends.mkl.is_available() else "PyTorch's own BLAS"


@contextmanager
def plain() -> Iterator[None]:
    """`F.linear` everywhere: for exporting, where oneDNN's operator means nothing."""
    global WIDE, PACKS, UNITS
    before, halves = (WIDE, PACKS, UNITS), (torch.bfloat16, torch.float16)
    WIDE, PACKS, UNITS = False, dict.fromkeys(halves, False), UNITS | dict.fromkeys(halves, True)
    try:
        yield
    finally:
        WIDE, PACKS, UNITS = before


class Packed:
    """A frozen weight (N, K) in 16 bits on the CPU, laid out as oneDNN reads it in products of about so many `rows`.

    What products with gradients want of it beside that, its transpose, is laid out at the first of them.
    """

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.shape, self.dtype, self.rows = weight.shape, weight.dtype, rows
        self.content = self._laid_out(weight.detach())
        self._transposed: Tensor | None = None

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (..., K) of its type -> (..., N)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.content, bias, "none", [], "")

    def back(self, grad: Tensor) -> Tensor:
        """The gradient for the product, (..., N), -> that for x, (..., K)."""
        if self._transposed is None:
            self._transposed = self._laid_out(self.content.to_dense().T)
        return torch.ops.mkldnn._linear_pointwise(grad, self._transposed, None, "none", [], "")

    def __reduce__(self) -> tuple:
        """As plain numbers: oneDNN's layout can be neither copied nor stored."""
        return Packed, (self.content.to_dense(), self.rows)

    def _laid_out(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), self.rows)


def linear(x: Tensor, weight: Tensor | Packed, bias: Tensor | None = None) -> Tensor:
    """x (..., K) by weight (N, K) and bias (N,) -> (..., N), differentiable once.

    Of a weight in 16 bits, the product is in 16 bits too, whatever x is in; a packed one has no gradient.
    """
    if isinstance(weight, Packed):
        x, bias = x.to(weight.dtype), None if bias is None else bias.to(weight.dtype)
        wanted = torch.is_grad_enabled() and x.requires_grad
        return _PackedProduct.apply(x, weight, bias) if wanted else weight.product(x, bias)
    if weight.itemsize < x.itemsize:
        x = x.to(weight.dtype)
    if x.device.type == "cpu" and x.dtype != torch.float64 and torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        if not has_units(dtype):
            x, weight, bias = (part if part is None else part.to(dtype) for part in (x, weight, bias))
    if not (x.device.type == "cpu" and x.dtype == weight.dtype and x.numel() and _computed_here(x.dtype)):
        return F.linear(x, weight, bias)
    given = [part for part in (x, weight, bias) if part is not None]
    if torch.is_grad_enabled() and any(part.requires_grad for part in given):
        return _Product.apply(x, weight, bias)
    return (_opaque if torch.compiler.is_compiling() else _product)(x, weight, bias)


@torch.autocast("cpu", enabled=False)
def in_float32(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K) by weight (N, K) and bias (N,), of types that are slow here, -> (..., N) float32; no gradient.

    Some rows of the weight at a time: room for a whole one in float32 made the trunk some 10 % slower.
    """
    x, y = x.float(), torch.empty(*x.shape[:-1], len(weight), dtype=torch.float32, device=x.device)
    step = max(1, WIDENED // weight.shape[1])
    for first in range(0, len(weight), step):
        rows = slice(first, first + step)
        y[..., rows] = linear(x, weight[rows].float(), None if bias is None else bias[rows].float())
    return y


class Linear(nn.Linear):
    """`nn.Linear` by way of `linear`. Where no gradient is wanted, autocast on a CPU finds its weight packed."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._kept: tuple[tuple, Packed] | None = None  # the packed weight, and of what it was made
        wide()  # the self-check comes before torch.compile, which would take it into its graph

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self._weight_for(x), self.bias)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kept": None}

    def _weight_for(self, x: Tensor) -> Tensor | Packed:
        weight = self.weight
        asked = torch.is_autocast_enabled("cpu") and x.device.type == "cpu" and x.numel()
        if not asked or torch.is_grad_enabled() or weight.is_inference():  # of which PyTorch counts no versions
            return weight
        dtype = torch.get_autocast_dtype("cpu")
        if weight.dtype != torch.float32 or not packs(dtype):
            return weight
        made_of = (weight.data_ptr(), weight._version, dtype)
        if self._kept is None or self._kept[0] != made_of:
            self._kept = made_of, Packed(weight.to(dtype), x.numel() // x.shape[-1])
        return self._kept[1]


def _computed_here(dtype: torch.dtype) -> bool:
    """Whether a CPU's products in that type are `_product`."""
    if dtype == torch.float32:
        return wide() and not torch.is_autocast_enabled("cpu")
    return not has_units(dtype)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """In float32 by oneDNN. In 16 bits on a CPU without units for them: by float32's product, of the same numbers,
    rounded to 16 bits at last, as units do it."""
    if x.dtype != torch.float32:
        return in_float32(x, weight, bias).to(x.dtype)
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


class _PackedProduct(torch.autograd.Function):
    """`Packed.product` with x's gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Packed, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return weight.product(x, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.weight.back(grad), None, None
