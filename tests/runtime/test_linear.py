"""The CPU's wide products against PyTorch's own: values, gradients, and when each is taken."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from runtime import linear
from runtime.errors import InputError

WIDE = pytest.mark.skipif(not linear.wide(), reason="this machine's products are PyTorch's own")
GENERATOR = torch.Generator().manual_seed(0)


def numbers(*shape: int, grad: bool = False) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR).requires_grad_(grad)


@pytest.mark.parametrize("shape", [(7,), (1, 7), (3, 5, 7), (0, 7), (2, 0, 7)])
@pytest.mark.parametrize("biased", [True, False])
def test_the_same_product(shape, biased):
    x, weight, bias = numbers(*shape), numbers(4, 7), numbers(4) if biased else None
    y = linear.linear(x, weight, bias)
    assert y.shape == (*shape[:-1], 4) and torch.allclose(y, F.linear(x, weight, bias), atol=1e-5)


@pytest.mark.parametrize(
    "wants", [(True, True, True), (True, False, False), (False, True, False), (False, False, True)], ids=str
)
@pytest.mark.parametrize("shape", [(3, 5, 7), (5, 7), (7,)])
def test_the_same_gradients(wants, shape):
    given = [numbers(*size, grad=want) for size, want in zip((shape, (4, 7), (4,)), wants, strict=True)]
    found = []
    for product in (linear.linear, F.linear):
        product(*given).square().sum().backward()
        found.append([None if part.grad is None else part.grad.clone() for part in given])
        for part in given:
            part.grad = None
    for ours, theirs, want in zip(*found, wants, strict=True):
        assert (ours is not None) == want and (not want or torch.allclose(ours, theirs, atol=1e-4))


def test_strided_inputs():
    x, weight = numbers(9, 5).T, numbers(9, 4).T  # columns that lie apart
    assert torch.allclose(linear.linear(x, weight), F.linear(x, weight), atol=1e-5)
    for bias in (numbers(8)[::2], numbers(1).expand(4)):
        assert torch.allclose(linear.linear(x, weight, bias), F.linear(x, weight, bias), atol=1e-5)


@WIDE
def test_rows_do_not_depend_on_their_company():
    x, weight, bias = numbers(6, 20, 64), numbers(48, 64), numbers(48)
    together = linear.linear(x, weight, bias)
    assert all(torch.equal(linear.linear(x[row : row + 1], weight, bias)[0], together[row]) for row in range(6))


def test_other_types_are_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(linear, "WIDE", True)
    monkeypatch.setitem(linear.UNITS, torch.bfloat16, True)
    monkeypatch.setattr(linear, "_product", lambda *_: pytest.fail("float32 alone is taken"))
    x, weight = numbers(2, 7), numbers(4, 7)
    assert linear.linear(x.double(), weight.double()).dtype == torch.float64
    assert linear.linear(x.bfloat16(), weight.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert linear.linear(x, weight).dtype == torch.bfloat16
    with linear.plain():
        assert linear.linear(x, weight).equal(F.linear(x, weight))
    assert linear.WIDE


def test_layers_are_torchs_own_but_for_the_product():
    layer = linear.Linear(7, 4)
    assert isinstance(layer, torch.nn.Linear) and layer.state_dict().keys() == {"weight", "bias"}
    x = numbers(2, 7)
    assert torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-6)


@pytest.fixture
def unsettled(monkeypatch):
    """A machine where oneDNN is the faster one, before its first product; yields who was asked for products."""
    asked = []
    monkeypatch.setattr(linear, "WIDE", None)
    monkeypatch.setattr(linear, "_faster", lambda: True)
    monkeypatch.setattr(linear, "_product", lambda *given: asked.append("oneDNN") or F.linear(*given))
    monkeypatch.delenv(linear.SWITCH, raising=False)
    return asked


@pytest.mark.parametrize("switch", [None, ""])
def test_checked_once_then_taken(unsettled, monkeypatch, capsys, switch):
    if switch is not None:
        monkeypatch.setenv(linear.SWITCH, switch)
    before = torch.get_rng_state()
    with torch.device("meta"):  # a model that is built without numbers
        linear.Linear(7, 4)
    checks = len(unsettled)
    assert checks and linear.wide() and linear.library() == "oneDNN"
    linear.linear(numbers(2, 7), numbers(4, 7))
    assert len(unsettled) == checks + 1
    assert torch.equal(torch.get_rng_state(), before) and capsys.readouterr() == ("", "")


def test_switched_off(unsettled, monkeypatch, capsys):
    monkeypatch.setenv(linear.SWITCH, "torch")
    x, weight = numbers(2, 7, grad=True), numbers(4, 7)
    assert linear.linear(x, weight).equal(F.linear(x, weight))
    assert not unsettled and not linear.wide() and linear.library() != "oneDNN"
    assert capsys.readouterr() == ("", "")


def test_a_switch_that_means_nothing(unsettled, monkeypatch):
    monkeypatch.setenv(linear.SWITCH, "pytorch")
    with pytest.raises(InputError, match="CLIPMPCAD_LINEAR=pytorch means nothing; set it to torch"):
        linear.Linear(7, 4)


def test_left_alone_where_it_is_no_faster(unsettled, monkeypatch):
    monkeypatch.setattr(linear, "_faster", lambda: False)
    linear.linear(numbers(2, 7), numbers(4, 7))
    assert not unsettled and not linear.wide()


def test_a_trial_that_cannot_be_leaves_it_to_the_self_check(monkeypatch):
    def missing(*_: object) -> None:
        raise AttributeError("no such product")

    monkeypatch.setattr(linear, "remembered", missing)
    assert linear._faster()


def off(*given: torch.Tensor) -> torch.Tensor:
    return F.linear(*given) * (1 + 1e-4)


def gone(*_: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn.no_such_product


def other_arguments(*given: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.linear(*given, "none", [], "")


@pytest.mark.parametrize(
    ("product", "why"), [(off, "it is off by"), (gone, "no_such_product"), (other_arguments, "linear")]
)
def test_a_failed_self_check_falls_back(unsettled, monkeypatch, capsys, product, why):
    monkeypatch.setattr(linear, "_product", product)
    x, weight, bias = numbers(2, 7, grad=True), numbers(4, 7), numbers(4)
    for _ in range(2):
        assert linear.linear(x, weight, bias).equal(F.linear(x, weight, bias))
    assert linear.library() != "oneDNN"
    (line,) = capsys.readouterr().err.splitlines()  # one, however many products
    assert line.startswith("warning: oneDNN's product fails its self-check (") and why in line
    assert line.endswith("F.linear, slower here, is used")


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_the_installed_operator_passes(capsys):
    with torch.autocast("cpu", torch.bfloat16):
        assert linear._agrees() and not capsys.readouterr().err


HALVES = [half for half in (torch.bfloat16, torch.float16) if linear.packs(half)]
PACKED = pytest.mark.skipif(not HALVES, reason="this machine has no products in 16 bits")


@PACKED
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("shape", [(7,), (1, 7), (3, 5, 7), (0, 7)])
def test_packed_weights_give_the_same_product(half, shape):
    x, weight, bias = numbers(*shape), numbers(4, 7), numbers(4)
    packed = linear.Packed(weight.to(half), 5)
    for given in (bias, None):
        found = linear.linear(x, packed, given)
        expected = F.linear(x.to(half), weight.to(half), None if given is None else given.to(half))
        assert found.dtype == half and torch.allclose(found, expected, atol=8 * torch.finfo(half).eps)


@PACKED
@pytest.mark.parametrize("half", HALVES)
def test_packed_weights_pass_the_gradient_on(half):
    x, weight, bias = numbers(3, 5, 7, grad=True), numbers(4, 7), numbers(4)
    packed = linear.Packed(weight.to(half), 15)
    (found,) = torch.autograd.grad(linear.linear(x, packed, bias).float().square().sum(), x)
    (expected,) = torch.autograd.grad(linear.linear(x, weight.to(half), bias.to(half)).float().square().sum(), x)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, rtol=0.02, atol=0.1)


@PACKED
def test_packed_rows_do_not_depend_on_their_company():
    x, packed = numbers(6, 20, 64), linear.Packed(numbers(48, 64).to(HALVES[0]), 20)
    together = linear.linear(x, packed)
    assert all(torch.equal(linear.linear(x[row : row + 1], packed)[0], together[row]) for row in range(6))


@PACKED
def test_a_layer_under_autocast_packs_its_weight_anew_when_it_has_changed():
    layer, x = linear.Linear(7, 4, bias=False), numbers(2, 7)
    with torch.inference_mode(), torch.autocast("cpu", HALVES[0]):
        first = layer(x)
        kept = layer._kept[1]
        assert layer(x).equal(first) and layer._kept[1] is kept
        assert torch.allclose(first, F.linear(x, layer.weight), atol=0.05)
    torch.optim.SGD(layer.parameters(), 1.0).zero_grad()
    layer(x).sum().backward()
    torch.optim.SGD(layer.parameters(), 1.0).step()
    with torch.inference_mode(), torch.autocast("cpu", HALVES[0]):
        assert not layer(x).equal(first) and torch.allclose(layer(x), F.linear(x, layer.weight), atol=0.1)
    with torch.autocast("cpu", HALVES[0]):
        layer(x).sum().backward()  # with gradients it is PyTorch's own
    assert layer.weight.grad is not None


def test_nothing_is_packed_where_the_self_check_fails(monkeypatch, capsys):
    monkeypatch.setattr(linear, "PACKS", {})
    monkeypatch.setitem(linear.UNITS, torch.bfloat16, True)
    monkeypatch.setattr(linear.Packed, "product", lambda self, x, bias=None: x)
    assert not linear.packs(torch.bfloat16) and "fails its self-check" in capsys.readouterr().err
    assert not linear.packs(torch.bfloat16) and not capsys.readouterr().err  # said once


def test_nothing_is_packed_when_switched_off(monkeypatch):
    monkeypatch.setattr(linear, "PACKS", {})
    monkeypatch.setattr(linear, "UNITS", {})
    monkeypatch.setenv(linear.SWITCH, "torch")
    assert not linear.packs(torch.bfloat16)
    assert linear.UNITS  # asked before torch.compile, whose graph the question would break


@PACKED
def test_packed_weights_can_be_copied_and_stored():
    x, packed = numbers(3, 7), linear.Packed(numbers(4, 7).to(HALVES[0]), 3)
    expected = linear.linear(x, packed)
    for again in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert torch.equal(linear.linear(x, again), expected)
    layer = linear.Linear(7, 4, bias=False)
    with torch.inference_mode(), torch.autocast("cpu", HALVES[0]):
        assert torch.equal(layer(x), copy.deepcopy(layer)(x))


@PACKED
def test_a_layer_made_in_inference_mode_works_under_autocast():
    with torch.inference_mode(), torch.autocast("cpu", HALVES[0]):
        assert linear.Linear(7, 4)(numbers(3, 7)).dtype == HALVES[0]


def test_the_trial_is_of_real_numbers_whatever_is_being_built(monkeypatch):
    def run(name: str, calls: dict) -> dict[str, float]:
        assert all(call().device.type == "cpu" and call().dtype == torch.float32 for call in calls.values())
        return dict.fromkeys(calls, 1.0)

    monkeypatch.setattr(linear, "remembered", run)
    monkeypatch.setattr(linear, "_product", F.linear)
    with torch.device("meta"):
        assert not linear._faster()


@pytest.mark.parametrize(("torch_takes", "taken"), [(2.5, True), (1.0, False)])
def test_a_trial_decides(monkeypatch, torch_takes, taken):
    monkeypatch.setattr(linear, "remembered", lambda *_: {"PyTorch": torch_takes, "oneDNN": 1.0})
    assert linear._faster() == taken


class Products(TorchDispatchMode):
    """Which types went into matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "mm" in str(func) or "linear" in str(func):
            self.types |= {arg.dtype for arg in args if isinstance(arg, torch.Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.fixture
def without_units(monkeypatch):
    """A CPU that computes in float32 alone."""
    for half in (torch.bfloat16, torch.float16):
        monkeypatch.setitem(linear.UNITS, half, False)
        monkeypatch.setitem(linear.PACKS, half, False)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(7,), (3, 5, 7), (0, 7)])
def test_without_units_the_product_is_float32s_of_the_rounded_numbers(without_units, half, shape):
    x, weight, bias = numbers(*shape), numbers(4, 7).to(half), numbers(4).to(half)
    for given in (bias, None):
        with Products() as seen:
            found = linear.linear(x, weight, given)
        exact = F.linear(x.to(half).double(), weight.double(), None if given is None else given.double())
        assert found.dtype == half and (not x.numel() or seen.types == {torch.float32})
        assert torch.allclose(found.double(), exact, rtol=torch.finfo(half).eps, atol=1e-6)  # rounded once


def test_exports_take_pytorchs_own_product_in_16_bits(without_units, monkeypatch):
    monkeypatch.setattr(linear, "_product", lambda *_: pytest.fail("an operator that an export can't carry"))
    with linear.plain():
        assert linear.linear(numbers(3, 7), numbers(4, 7).bfloat16()).dtype == torch.bfloat16
    assert not linear.has_units(torch.bfloat16)


def test_without_units_autocast_leaves_doubles_alone(without_units):
    x, weight = numbers(3, 7).double(), numbers(4, 7).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert linear.linear(x, weight).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
def test_weights_are_widened_some_rows_at_a_time(monkeypatch, dtype):
    x, weight, bias = numbers(2, 5, 7), (9 * numbers(11, 7)).to(dtype), numbers(11)
    expected = F.linear(x, weight.float(), bias)
    for step in (1, 3 * 7, 11 * 7, 100):
        monkeypatch.setattr(linear, "WIDENED", step)
        assert torch.allclose(linear.in_float32(x, weight, bias), expected, atol=1e-4)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_without_units_autocast_trains_in_float32_on_rounded_numbers(without_units, half):
    layer, x = linear.Linear(7, 4), numbers(3, 5, 7, grad=True)
    with Products() as seen, torch.autocast("cpu", half):
        found = layer(x)
        found.float().square().sum().backward()
    assert found.dtype == half and seen.types == {torch.float32}
    rounded = [part.detach().to(half).double().requires_grad_() for part in (x, layer.weight, layer.bias)]
    F.linear(*rounded).square().sum().backward()
    for part, exact in zip((x, layer.weight, layer.bias), rounded, strict=True):
        assert part.grad.dtype == torch.float32
        assert (part.grad.double() - exact.grad).norm() < 4 * torch.finfo(half).eps * exact.grad.norm()


def test_without_units_no_weight_is_kept_in_float32_for_the_gradient(without_units):
    """A frozen trunk in 16 bits would be held twice over: once more, and wider."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        linear.linear(numbers(3, 7, grad=True), numbers(4, 7).bfloat16()).float().sum().backward()
    assert kept and not [tensor for tensor in kept if tensor.dtype == torch.float32 and tensor.shape[-1] == 7]
