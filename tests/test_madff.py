"""The adapters: golden numbers, subsets of attentions computed by hand, and what each part may change."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from helpers.goldens import FORWARD, arrays, relative
from torch import Tensor

from madff import ATTENTIONS, FAB, LLSPM, MADFF, MVFA, SCA, Projector, build_adapter

EXACT = 1e-6
SUBSETS = [subset for size in range(4) for subset in combinations(ATTENTIONS, size)]


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in arrays("madff").items()}


@pytest.fixture
def adapter(golden_decoder) -> MADFF:
    return golden_decoder("madff").seg_adapters[0]


@pytest.fixture(scope="module")
def x(golden) -> Tensor:
    return golden["x"]


def attended(adapter: MADFF, x: Tensor) -> dict[str, Tensor]:
    """What each attention makes of x; LLSPM acts on SCA's output."""
    x_sca = adapter.channel_attention(x)
    return {"sca": x_sca, "llspm": adapter.spatial_attention(x_sca), "fab": adapter.frequency_attention(x)}


def test_golden_attentions(adapter, golden, x):
    paths = attended(adapter, x)
    for name in ATTENTIONS:
        assert relative(paths[name], golden[name]) < FORWARD


def test_golden_tokens_and_residual(adapter, golden, x):
    tokens, residual = adapter(x)
    assert relative(tokens, golden["tokens"]) < FORWARD
    assert relative(residual, golden["residual"]) < FORWARD


def test_golden_token_axis(golden_decoder, golden, x):
    tokens, residual = golden_decoder("madff", axis="token").seg_adapters[0](x)
    assert relative(tokens, golden["tokens_tokenwise"]) < FORWARD
    assert relative(residual, golden["residual_tokenwise"]) < FORWARD
    assert relative(golden["tokens_tokenwise"], golden["tokens"]) > 100 * FORWARD


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_an_attention_that_is_off_gives_its_weight_to_the_plain_path(adapter, x, subset):
    tokens, residual = only(adapter, subset)(x)
    expected_tokens, expected_residual = by_hand(adapter, x, subset)
    assert relative(tokens, expected_tokens) < 1e-5
    assert relative(residual, expected_residual) < 1e-5


def only(adapter: MADFF, subset: tuple[str, ...]) -> MADFF:
    """The same weights with those attentions alone."""
    part = MADFF(64, 48, attentions=subset)
    state = adapter.state_dict()
    part.load_state_dict({name: state[name] for name in part.state_dict()})
    return part


def by_hand(adapter: MADFF, x: Tensor, subset: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Tokens and residual from the weights alone, in the formulas' own words."""
    weight = adapter.state_dict()

    def down(u: Tensor) -> Tensor:
        return F.leaky_relu(u @ weight["fc1.0.weight"].T, 0.01)

    def up(u: Tensor) -> Tensor:
        return F.leaky_relu(u @ weight["fc2.0.weight"].T, 0.01)

    def mlp(name: str, u: Tensor) -> Tensor:
        return F.relu(u @ weight[f"{name}.fc.0.weight"].T) @ weight[f"{name}.fc.2.weight"].T

    def sca(u: Tensor) -> Tensor:
        pooled = mlp("channel_attention", u.mean(1)) + mlp("channel_attention", u.max(1).values)
        return u * pooled.sigmoid()[:, None, :]

    def llspm(u: Tensor) -> Tensor:
        pooled = torch.stack([u.mean(2), u.max(2).values], 1)
        kernel, bias = weight["spatial_attention.conv.weight"], weight["spatial_attention.conv.bias"]
        return u * F.conv1d(pooled, kernel, bias, padding=3).sigmoid().transpose(1, 2)

    def fab(u: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(u.transpose(1, 2)).abs()  # (B, C, L)
        f = (spectrum.mean(2) + spectrum.max(2).values) / 2
        return u * mlp("frequency_attention", f).sigmoid()[:, None, :]

    paths = {"sca": sca(x), "fab": fab(x)}
    paths["llspm"] = llspm(paths["sca"] if "sca" in subset else x)
    shares = {"sca": (0.2, 0.2), "llspm": (0.2, 0.2), "fab": (0.2, 0.3)}
    plain_tokens = 1 - sum(shares[name][0] for name in subset)
    plain_residual = 1 - sum(shares[name][1] for name in subset)
    tokens = plain_tokens * down(x) + sum(shares[name][0] * down(paths[name]) for name in subset)
    residual = plain_residual * up(tokens) + sum(shares[name][1] * paths[name] for name in subset)
    return tokens, residual


def test_without_attentions_it_is_the_baseline(adapter, x):
    baseline = MVFA(64, 48)
    baseline.load_state_dict({name: adapter.state_dict()[name] for name in baseline.state_dict()})
    found, expected = only(adapter, ())(x), baseline(x)
    assert relative(found[0], expected[0]) < EXACT and relative(found[1], expected[1]) < EXACT


def test_an_attention_that_is_off_has_no_weights():
    owner = {"channel_attention": "sca", "spatial_attention": "llspm", "frequency_attention": "fab"}
    for subset in SUBSETS:
        names = {name.split(".")[0] for name in MADFF(64, 48, attentions=subset).state_dict()}
        assert {owner[name] for name in names - {"fc1", "fc2"}} == set(subset)


@pytest.mark.parametrize(
    ("weight", "moved"),
    [
        ("channel_attention.fc.2.weight", {"sca", "llspm"}),  # LLSPM acts on SCA's output
        ("spatial_attention.conv.bias", {"llspm"}),
        ("frequency_attention.fc.2.weight", {"fab"}),
        ("fc1.0.weight", set()),
    ],
)
def test_a_weight_changes_its_own_paths_only(adapter, x, weight, moved):
    before, (tokens, residual) = attended(adapter, x), adapter(x)
    with torch.no_grad():
        adapter.get_parameter(weight).add_(0.5)
    after, (new_tokens, new_residual) = attended(adapter, x), adapter(x)
    assert {name for name in before if not after[name].equal(before[name])} == moved
    assert relative(new_tokens, tokens) > 1e-3 and relative(new_residual, residual) > 1e-3


@pytest.mark.parametrize("axis", ["sequence", "token"])
def test_a_residual_that_nobody_reads_is_left_out(golden_decoder, x, axis):
    adapter = golden_decoder("madff", axis=axis).det_adapters[1]
    tokens, residual = adapter(x, residual=False)
    assert residual is None and tokens.equal(adapter(x)[0])


@pytest.mark.parametrize("axis", ["sequence", "token"])
def test_an_image_does_not_depend_on_its_batch(golden_decoder, x, axis):
    adapter = golden_decoder("madff", axis=axis).det_adapters[1]
    together = adapter(x)
    alone = [adapter(part) for part in x.split(1)]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert relative(whole, torch.cat(parts)) < EXACT


def changed_tokens(adapter: MADFF, x: Tensor) -> Tensor:
    """Which tokens (L,) of the first image change when its token 20 does."""
    other = x.clone()
    other[0, 20] *= 3
    difference = (adapter(other)[0] - adapter(x)[0])[0].abs().amax(dim=-1)
    return difference > 1e-5


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({"axis": "token"}, lambda place: place == 20),
        ({"attentions": ("llspm",)}, lambda place: abs(place - 20) <= 3),
        ({"attentions": ()}, lambda place: place == 20),
        ({"attentions": ("sca",)}, lambda place: True),
        ({"attentions": ("fab",)}, lambda place: True),
    ],
)
def test_how_far_a_token_reaches(x, options, reach: Callable[[int], bool]):
    torch.manual_seed(0)
    adapter = MADFF(64, 48, **options)
    assert changed_tokens(adapter, x).tolist() == [reach(place) for place in range(50)]


def test_gates_by_hand():
    x = torch.tensor([[[1.0, -2.0], [3.0, 0.0]]])  # (1, 2, 2)
    sca, llspm = SCA(2), LLSPM()
    with torch.no_grad():
        sca.fc[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
        sca.fc[2].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        llspm.conv.weight.zero_()
        llspm.conv.weight[0, :, 3] = torch.tensor([1.0, 2.0])  # the token itself: mean + 2·max
        llspm.conv.bias.fill_(0.5)
    gate = torch.tensor([5.0, -5.0]).sigmoid()  # channel 0: mean 2, maximum 3
    assert torch.allclose(sca(x), x * gate)
    gate = torch.tensor([-0.5 + 2 + 0.5, 1.5 + 6 + 0.5]).sigmoid()[None, :, None]
    assert torch.allclose(llspm(x), x * gate)


@pytest.mark.parametrize(("length", "width"), [(50, 64), (7, 5), (1, 6), (4, 1)])
def test_frequency_gate_is_that_of_the_whole_spectrum(length, width):
    torch.manual_seed(0)
    block, x = FAB(width), torch.randn(2, length, width)
    spectrum = torch.fft.fft2(x.transpose(1, 2)).abs()  # (B, C, L)
    gate = block.fc((spectrum.mean(2) + spectrum.amax(2)) / 2).sigmoid()
    assert relative(block(x), x * gate[:, None]) < 1e-5


def test_half_precision_stays_half():
    block, x = FAB(32).to(torch.bfloat16), torch.randn(2, 9, 32).to(torch.bfloat16)
    assert block(x).dtype == torch.bfloat16


def test_mvfa_and_projector_by_hand(x):
    torch.manual_seed(0)
    mvfa, projector = MVFA(64, 48), Projector(64, 48)
    tokens, residual = mvfa(x)
    down, up = mvfa.fc1[0].weight, mvfa.fc2[0].weight
    assert relative(tokens, F.leaky_relu(x @ down.T, 0.01)) < EXACT
    assert relative(residual, F.leaky_relu(tokens @ up.T, 0.01)) < EXACT
    tokens, residual = projector(x)
    assert residual is None
    linear = x @ projector.fc.weight.T
    assert relative(tokens, F.layer_norm(linear, (48,))) < 1e-5


@pytest.mark.parametrize(("kind", "made"), [("madff", MADFF), ("mvfa", MVFA), ("projector", Projector)])
def test_adapters_by_name(kind, made):
    assert type(build_adapter(kind, 64, 48)) is made


def test_options_reach_madff():
    adapter = build_adapter("madff", 64, 48, attentions=("fab", "sca"), axis="token")
    assert adapter.attentions == ("sca", "fab") and adapter.axis == "token"
