"""CLIP's towers from released layouts, against the same towers written out with torch's own attention."""

import pytest
import torch
from torch import Tensor, nn

from geodream_lib.errors import InputError
from geodream_lib.weights.clip import (
    hf_text_tower,
    open_clip_text_projection,
    open_clip_text_tower,
    openai_image_tower,
)

WIDTH, HEADS, LAYERS = 128, 2, 3


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """One layer of OpenAI's and OpenCLIP's transformers: norms first, both halves residual."""

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(WIDTH, 4 * WIDTH), "c_proj": nn.Linear(4 * WIDTH, WIDTH)})
        self.activation = activation

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x))))


class Transformer(nn.Module):
    def __init__(self, activation: nn.Module):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(activation) for _ in range(LAYERS))

    def forward(self, x: Tensor, mask: Tensor | None = None, leave_out: int = 0) -> Tensor:
        for block in self.resblocks[: LAYERS - leave_out]:
            x = block(x, mask)
        return x


class ImageTower(nn.Module):
    """`visual` of OpenAI's CLIP: a class token before the patches, projected by a factor on the right."""

    def __init__(self, patch: int = 4, grid: int = 3, projected: int = 24):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn(grid * grid + 1, WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Transformer(QuickGELU())
        self.proj = nn.Parameter(torch.randn(WIDTH, projected))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv1(images).flatten(2).mT
        x = torch.cat([self.class_embedding.expand(len(images), 1, -1), patches], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class TextTower(nn.Module):
    """The text half of CLIP in OpenAI's and OpenCLIP's layout: causal, learned positions."""

    def __init__(self, activation: nn.Module, tokens: int = 40, length: int = 9):
        super().__init__()
        self.token_embedding = nn.Embedding(tokens, WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(length, WIDTH))
        self.transformer = Transformer(activation)
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, 24))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor, leave_out: int) -> Tensor:
        mask = torch.full((tokens.shape[1], tokens.shape[1]), float("-inf")).triu(1)
        x = self.token_embedding(tokens) + self.positional_embedding
        return self.ln_final(self.transformer(x, mask, leave_out))

    def embed(self, tokens: Tensor) -> Tensor:
        """The last token of each text, which has the highest number, in the space shared with images."""
        last = self(tokens, leave_out=0)[torch.arange(len(tokens)), tokens.argmax(dim=-1)]
        return last @ self.text_projection


def random_weights(module: nn.Module) -> dict[str, Tensor]:
    """Numbers of a size that makes every parameter matter; ones and zeros of a fresh norm would hide a swap."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def test_image_tower_is_openai_s():
    reference = ImageTower()
    tower = openai_image_tower(random_weights(reference), "test")
    images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(tower(images).image_embeds, reference(images), atol=1e-4, rtol=1e-4)
    assert tower.config.image_size == 12


@torch.no_grad()
def test_text_tower_of_stable_diffusion_2_leaves_out_the_last_layer(tokens):
    reference = TextTower(nn.GELU())
    tower = open_clip_text_tower(random_weights(reference), "test")
    torch.testing.assert_close(tower(tokens).last_hidden_state, reference(tokens, leave_out=1), atol=1e-4, rtol=1e-4)
    assert tower.config.num_hidden_layers == LAYERS - 1


@torch.no_grad()
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_text_tower_with_projection_is_open_clip_s(tokens, activation):
    """Texts end at different places, and what comes after the end is of no importance."""
    reference = TextTower(nn.GELU() if activation == "gelu" else QuickGELU())
    weights = {name: tensor for name, tensor in random_weights(reference).items() if name != "logit_scale"}
    tower = open_clip_text_projection(weights, "test", activation=activation)
    tokens = tokens.clamp(max=37)
    tokens[0, 5] = tokens[1, 8] = 39
    torch.testing.assert_close(tower(tokens).text_embeds, reference.embed(tokens), atol=1e-4, rtol=1e-4)
    assert tower.config.projection_dim == 24 and tower.config.num_hidden_layers == LAYERS


@torch.no_grad()
def test_text_tower_of_stable_diffusion_1_has_all_layers(tokens):
    """Its layout is transformers' own, so the reference's weights are renamed by hand first."""
    reference = TextTower(QuickGELU())
    official = random_weights(reference)
    renamed = {
        "embeddings.token_embedding.weight": official["token_embedding.weight"],
        "embeddings.position_embedding.weight": official["positional_embedding"],
        "embeddings.position_ids": torch.arange(9)[None],
    }
    for kind in ("weight", "bias"):
        renamed[f"final_layer_norm.{kind}"] = official[f"ln_final.{kind}"]
        for i in range(LAYERS):
            ours, there = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
            stacked = official[f"{there}.attn.in_proj_{kind}"]
            for j, letter in enumerate("qkv"):
                renamed[f"{ours}.self_attn.{letter}_proj.{kind}"] = stacked[j * WIDTH : (j + 1) * WIDTH].clone()
            renamed[f"{ours}.self_attn.out_proj.{kind}"] = official[f"{there}.attn.out_proj.{kind}"]
            renamed[f"{ours}.layer_norm1.{kind}"] = official[f"{there}.ln_1.{kind}"]
            renamed[f"{ours}.layer_norm2.{kind}"] = official[f"{there}.ln_2.{kind}"]
            renamed[f"{ours}.mlp.fc1.{kind}"] = official[f"{there}.mlp.c_fc.{kind}"]
            renamed[f"{ours}.mlp.fc2.{kind}"] = official[f"{there}.mlp.c_proj.{kind}"]
    tower = hf_text_tower(renamed, "test")
    torch.testing.assert_close(tower(tokens).last_hidden_state, reference(tokens, leave_out=0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("build", [openai_image_tower, open_clip_text_tower])
def test_a_key_too_many_or_too_few_is_an_error(build):
    reference = ImageTower() if build is openai_image_tower else TextTower(nn.GELU())
    weights = random_weights(reference)
    few = {name: tensor for name, tensor in weights.items() if name != "transformer.resblocks.1.mlp.c_fc.bias"}
    with pytest.raises(InputError, match=r"1 missing \(transformer.resblocks.1.mlp.c_fc.bias\)"):
        build(few, "test")
    with pytest.raises(InputError, match=r"1 unknown \(extra\)"):
        build(weights | {"extra": torch.zeros(1)}, "test")
    with pytest.raises(InputError, match="another network"):
        build({"extra": torch.zeros(1)}, "test")


def test_heads_can_be_counted_otherwise():
    weights = random_weights(ImageTower())
    assert openai_image_tower(weights, "test").config.num_attention_heads == WIDTH // 64
    assert openai_image_tower(weights, "test", heads=4).config.num_attention_heads == 4


def test_saved_tower_is_read_back_as_it_was(tmp_path, tokens):
    """Queries, keys and values came out of one tensor; each is saved whole."""
    from transformers import CLIPTextModel

    tower = open_clip_text_tower(random_weights(TextTower(nn.GELU())), "test")
    tower.save_pretrained(tmp_path)
    again = CLIPTextModel.from_pretrained(tmp_path)
    assert torch.equal(again(tokens).last_hidden_state, tower(tokens).last_hidden_state)
