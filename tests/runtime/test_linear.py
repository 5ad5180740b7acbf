"""The CPU's wide products against PyTorch's own: values, gradients, and when each is taken."""

import pytest
import torch
import torch.nn.functional as F

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
