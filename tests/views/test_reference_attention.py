import pytest
import torch
from diffusers import UNet2DConditionModel

from geodream_lib.views.zero123plus.attention import (
    install_reference_attention,
    predict_with_reference,
    reference_tokens,
)


@pytest.fixture
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=8,
        norm_num_groups=8,
    )
    return network.eval().requires_grad_(False)


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views of 12x8, a reference of another size, and a text, two of each."""
    g = torch.Generator().manual_seed(1)
    return tuple(torch.randn(2, *shape, generator=g) for shape in ((4, 12, 8), (4, 6, 6), (5, 8)))


def test_with_nothing_to_read_it_is_the_plain_network(unet, inputs):
    views, reference, text = inputs
    plain = unet(views, 500, text).sample
    install_reference_attention(unet)
    tokens = reference_tokens(unet, reference, 500, text)
    assert torch.equal(unet(views, 500, text).sample, plain), "nothing is kept between calls"
    empty = {name: layer[:, :0] for name, layer in tokens.items()}
    torch.testing.assert_close(predict_with_reference(unet, views, 500, text, empty), plain, atol=1e-5, rtol=0)
    assert not torch.allclose(predict_with_reference(unet, views, 500, text, tokens), plain, atol=1e-3)


def test_every_self_attention_leaves_its_tokens_and_no_cross_attention(unet, inputs):
    _, reference, text = inputs
    install_reference_attention(unet)
    tokens = reference_tokens(unet, reference, 500, text)
    assert set(tokens) == {name for name in unet.attn_processors if "attn1" in name}
    assert {layer.shape for layer in tokens.values()} == {(2, 36, 16), (2, 9, 16)}


def test_what_is_written_is_the_input_of_the_projections(unet, inputs):
    _, reference, text = inputs
    install_reference_attention(unet)
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    seen = []
    hook = block.norm1.register_forward_hook(lambda module, arguments, output: seen.append(output))
    tokens = reference_tokens(unet, reference, 500, text)
    hook.remove()
    assert torch.equal(tokens["down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor"], seen[0])


def test_an_image_that_reads_itself_sees_nothing_new(unet, inputs):
    """Every key occurs twice, so the softmax shares the same weights out over the same values."""
    views, _, text = inputs
    install_reference_attention(unet)
    tokens = reference_tokens(unet, views, 500, text)
    plain = unet(views, 500, text).sample
    torch.testing.assert_close(predict_with_reference(unet, views, 500, text, tokens), plain, atol=1e-4, rtol=0)


def test_the_reference_comes_in_through_self_attention_alone(unet, inputs):
    views, reference, text = inputs
    install_reference_attention(unet)
    for name, module in unet.named_modules():
        if name.endswith("attn1.to_out.0"):
            module.weight.zero_()
    tokens = reference_tokens(unet, reference, 500, text)
    plain = unet(views, 500, text).sample
    torch.testing.assert_close(predict_with_reference(unet, views, 500, text, tokens), plain, atol=1e-5, rtol=0)


def test_a_smaller_reference_belongs_to_the_last_items(unet, inputs):
    views, reference, text = inputs
    install_reference_attention(unet)
    tokens = reference_tokens(unet, reference[1:], 500, text[1:])
    both = predict_with_reference(unet, views, 500, text, tokens)
    alone = predict_with_reference(unet, views[1:], 500, text[1:], tokens)
    torch.testing.assert_close(both[:1], unet(views[:1], 500, text[:1]).sample, atol=1e-5, rtol=0)
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=0)
