"""MADFF, the multi-attention driven feature fusion adapter, and the two adapters it is compared with.

Every module takes tokens x (B, L, C), class token included, and returns what its class line says. Names (SCA, LLSPM,
FAB) are the paper's: "Multi-Attention Driven Feature Fusion".
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from runtime.linear import Linear

SQUEEZE = 16  # r, the ratio by which the gates' bottleneck is narrower than the trunk
KERNEL = 7  # tokens seen by LLSPM's convolution
SLOPE = 0.01  # of LeakyReLU
ATTENTIONS = ("sca", "llspm", "fab")
AXES = ("sequence", "token")
TOKEN_SHARE = {"plain": 0.4, "sca": 0.2, "llspm": 0.2, "fab": 0.2}  # of each path in the tokens
RESIDUAL_SHARE = {"plain": 0.3, "sca": 0.2, "llspm": 0.2, "fab": 0.3}  # of each path in the residual


def squeeze_mlp(width: int) -> nn.Sequential:
    """C -> C/r -> C without biases, the shape of both channel gates. Widths below r keep one unit."""
    narrow = max(width // SQUEEZE, 1)
    return nn.Sequential(Linear(width, narrow, bias=False), nn.ReLU(), Linear(narrow, width, bias=False))


class SCA(nn.Module):
    """Channel attention, (B, L, C) -> (B, L, C): gates channels by the mean and the maximum over the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = squeeze_mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.fc(x.mean(dim=1)) + self.fc(x.amax(dim=1)))  # (B, C)
        return x * gate.unsqueeze(1)


class LLSPM(nn.Module):
    """Spatial attention, (B, L, C) -> (B, L, C): gates tokens by a convolution along their sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 1, KERNEL, padding=KERNEL // 2)

    def gate(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, 1), in (0, 1)."""
        summary = torch.stack([x.mean(dim=2), x.amax(dim=2)], dim=1)  # (B, 2, L)
        return torch.sigmoid(self.conv(summary)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class FAB(nn.Module):
    """Frequency attention, (B, L, C) -> (B, L, C): gates channels by the spectrum's magnitude, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = squeeze_mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[2]
        spectrum = torch.fft.rfft2(x.float()).abs()  # (B, L, C/2 + 1): of a real x the other channels mirror these
        summary = (spectrum.mean(dim=1) + spectrum.amax(dim=1)) / 2  # (B, C/2 + 1)
        summary = torch.cat([summary, summary[:, 1 : (width + 1) // 2].flip(1)], dim=1)  # (B, C)
        return x * torch.sigmoid(self.fc(summary.to(x.dtype))).unsqueeze(1)


def projection(inputs: int, outputs: int) -> nn.Sequential:
    """Linear without bias, then LeakyReLU."""
    return nn.Sequential(Linear(inputs, outputs, bias=False), nn.LeakyReLU(SLOPE))


class MADFF(nn.Module):
    """(B, L, C) -> tokens (B, L, h) for the scores and residual (B, L, C) for the trunk.

    attentions: which of "sca", "llspm", "fab" are on; the share of one that is off goes to the plain path.
    axis: "sequence" pools over an image's tokens (the paper's figure); "token" gates every token alone, which is
        what the released code computes at batch 1.
    """

    def __init__(
        self, width: int, bottleneck: int, *, attentions: Sequence[str] = ATTENTIONS, axis: str = "sequence"
    ) -> None:
        super().__init__()
        assert set(attentions) <= set(ATTENTIONS), attentions
        assert axis in AXES, axis
        self.axis = axis
        self.attentions = tuple(name for name in ATTENTIONS if name in attentions)
        self.fc1 = projection(width, bottleneck)  # `down`
        self.fc2 = projection(bottleneck, width)  # `up`
        if "sca" in attentions:
            self.channel_attention = SCA(width)
        if "llspm" in attentions:
            self.spatial_attention = LLSPM()
        if "fab" in attentions:
            self.frequency_attention = FAB(width)

    def forward(self, x: Tensor, residual: bool = True) -> tuple[Tensor, Tensor | None]:
        """residual False leaves out what nobody will read: the second result is then None."""
        shape = x.shape
        if self.axis == "token":
            x = x.reshape(-1, 1, shape[-1])  # (B·L, 1, C)
        paths = self.attend(x)
        tokens = self._plain(TOKEN_SHARE) * self.fc1(x)  # t of section "Adapter", (B, L, h)
        for path, share, _ in paths:
            tokens = tokens + share * self.fc1(path)
        y = None
        if residual:
            y = self._plain(RESIDUAL_SHARE) * self.fc2(tokens)  # (B, L, C)
            for path, _, share in paths:
                y = y + share * path
            y = y.reshape(shape)
        return tokens.reshape(*shape[:2], -1), y

    def attend(self, x: Tensor) -> list[tuple[Tensor, Tensor | float, Tensor | float]]:
        """Attended copies of x (B, L, C), each with its share of the tokens and of the residual.

        LLSPM gates SCA's output x_sca by one positive number a token, so down(x_llspm) = gate · down(x_sca) and the
        two need one projection: LLSPM's gate (B, L, 1) goes into the shares of x_sca.
        """
        paths = []
        if "sca" in self.attentions or "llspm" in self.attentions:
            x_sca = self.channel_attention(x) if "sca" in self.attentions else x
            gates = {"sca": 1.0} if "sca" in self.attentions else {}
            if "llspm" in self.attentions:
                gates["llspm"] = self.spatial_attention.gate(x_sca)
            token_share, residual_share = (
                sum(shares[name] * gate for name, gate in gates.items()) for shares in (TOKEN_SHARE, RESIDUAL_SHARE)
            )
            paths.append((x_sca, token_share, residual_share))
        if "fab" in self.attentions:
            paths.append((self.frequency_attention(x), TOKEN_SHARE["fab"], RESIDUAL_SHARE["fab"]))
        return paths

    def _plain(self, shares: dict[str, float]) -> float:
        """The plain path's share, with those of the attentions that are off."""
        return 1.0 - sum(shares[name] for name in self.attentions)


class MVFA(nn.Module):
    """The baseline adapter of MVFA-AD, (B, L, C) -> tokens (B, L, h), residual (B, L, C)."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.fc1 = projection(width, bottleneck)
        self.fc2 = projection(bottleneck, width)

    def forward(self, x: Tensor, residual: bool = True) -> tuple[Tensor, Tensor | None]:
        tokens = self.fc1(x)  # (B, L, h)
        return tokens, self.fc2(tokens) if residual else None


class Projector(nn.Module):
    """The ablation without residual, (B, L, C) -> tokens (B, L, h), None."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.fc = Linear(width, bottleneck, bias=False)
        self.norm = nn.LayerNorm(bottleneck)

    def forward(self, x: Tensor, residual: bool = True) -> tuple[Tensor, None]:
        return self.norm(self.fc(x)), None


ADAPTERS = ("madff", "mvfa", "projector")


def build_adapter(
    kind: str, width: int, bottleneck: int, *, attentions: Sequence[str] = ATTENTIONS, axis: str = "sequence"
) -> nn.Module:
    """One adapter of `ADAPTERS`; attentions and axis concern MADFF alone."""
    if kind == "madff":
        return MADFF(width, bottleneck, attentions=attentions, axis=axis)
    return {"mvfa": MVFA, "projector": Projector}[kind](width, bottleneck)
