"""EVA's transformer blocks (Fang et al., 2022, 2023), which Uni3D uses as its trunk; parameter names are timm's.

EVA-02 turns its queries and keys by their place in the picture. Points have no such place: Uni3D leaves it out.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6  # of every norm in these blocks
# plain: GELU, EVA's giant. gated: SwiGLU with both halves in one layer, EVA-02's tiny and small. gated_norm: in two
# layers and with a norm behind them, EVA-02's base and large.
MLPS = ("plain", "gated", "gated_norm")


class Attention(nn.Module):
    """Self-attention whose keys have no bias, as that would cancel in the softmax.

    fused: queries, keys and values in one layer, and the two biases apart from it.
    """

    def __init__(self, width: int, heads: int, fused: bool):
        super().__init__()
        self.heads = heads
        self.fused = fused
        if fused:
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.q_bias = nn.Parameter(torch.zeros(width))
            self.v_bias = nn.Parameter(torch.zeros(width))
        else:
            self.q_proj = nn.Linear(width, width)
            self.k_proj = nn.Linear(width, width, bias=False)
            self.v_proj = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "n t w"]) -> Float[Tensor, "n t w"]:
        if self.fused:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
            parts = functional.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        else:
            parts = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class PlainMLP(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "n t w"]) -> Float[Tensor, "n t w"]:
        return self.fc2(functional.gelu(self.fc1(x)))


class GatedMLP(nn.Module):
    """SwiGLU: one half, through SiLU, is a factor of the other; the first half is the gate."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "n t w"]) -> Float[Tensor, "n t w"]:
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(functional.silu(gate) * value)


class GatedNormMLP(nn.Module):
    """SwiGLU with a norm before its last layer."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1_g = nn.Linear(width, hidden)
        self.fc1_x = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden, eps=EPSILON)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "n t w"]) -> Float[Tensor, "n t w"]:
        return self.fc2(self.norm(functional.silu(self.fc1_g(x)) * self.fc1_x(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to its input. mlp: one of `MLPS`."""

    def __init__(self, width: int, heads: int, mlp: str, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = Attention(width, heads, fused=mlp != "gated_norm")
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = {"plain": PlainMLP, "gated": GatedMLP, "gated_norm": GatedNormMLP}[mlp](width, hidden)

    def forward(self, x: Float[Tensor, "n t w"]) -> Float[Tensor, "n t w"]:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Trunk(nn.Module):
    """A pile of blocks; what comes out is the first token, normalised."""

    def __init__(self, width: int, depth: int, heads: int, mlp: str, hidden: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp, hidden) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Float[Tensor, "n t w"]) -> Float[Tensor, "n w"]:
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x[:, 0])
