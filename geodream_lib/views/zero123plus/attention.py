"""Reference attention: a UNet sees another image through its own self-attention (Zero123++'s local condition).

The noised reference goes through the same UNet first, and each self-attention leaves its input tokens behind. Then, as
the views go through, the same layer appends those tokens to its own keys and values. No weight is added: with nothing
to read the network is a plain Stable Diffusion UNet.
"""

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float, Int
from torch import Tensor

SELF_ATTENTION = "attn1.processor"  # how diffusers ends the name of a self-attention's processor
Tokens = dict[str, Tensor]  # input of each self-attention by its processor's name, [batch, tokens, width]


class ReferenceAttention:
    """Processor of one self-attention, in the form diffusers calls it; `layer` names it among the stored tokens.

    `write` and `read` are the caller's own, passed in with every call; nothing is kept here.
    """

    def __init__(self, layer: str) -> None:
        self.layer, self.attend = layer, AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "b n c"],
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        write: Tokens | None = None,
        read: Tokens | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Attention of the tokens to themselves and, when there is something to `read`, to the reference's tokens.

        The tokens arrive after the layer norm and leave before the key and value projections, so that both images go
        through the same projections. A reference of fewer items than the batch belongs to its last items; the first
        ones see themselves alone.
        """
        if write is not None:
            write[self.layer] = hidden_states
        if read is None:
            return self.attend(attn, hidden_states)
        tokens = read[self.layer]
        alone, seeing = hidden_states.split([len(hidden_states) - len(tokens), len(tokens)])
        output = self.attend(attn, seeing, torch.cat([seeing, tokens], dim=1))
        return torch.cat([self.attend(attn, alone), output]) if len(alone) else output


class TextAttention:
    """Processor of a cross-attention: diffusers hands it the reference too, and it does not look."""

    def __init__(self) -> None:
        self.attend = AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "b n c"],
        encoder_hidden_states: Float[Tensor, "b m d"],
        attention_mask: Tensor | None = None,
        write: Tokens | None = None,
        read: Tokens | None = None,
    ) -> Float[Tensor, "b n c"]:
        return self.attend(attn, hidden_states, encoder_hidden_states, attention_mask)


def install_reference_attention(unet: UNet2DConditionModel) -> None:
    """Let every self-attention of `unet` write and read reference tokens; cross-attention stays as it is."""
    names = unet.attn_processors
    unet.set_attn_processor(
        {name: ReferenceAttention(name) if name.endswith(SELF_ATTENTION) else TextAttention() for name in names}
    )


def reference_tokens(
    unet: UNet2DConditionModel,
    latent: Float[Tensor, "b c h w"],
    t: float | Int[Tensor, " b"],
    text: Float[Tensor, "b tokens d"],
) -> Tokens:
    """The write pass: input tokens of every self-attention as the noised reference `latent` goes through.

    The pass's own output is of no use. A 64x64 latent leaves 4096 tokens at the finest level.
    """
    tokens: Tokens = {}
    unet(latent.to(unet.dtype), t, encoder_hidden_states=text.to(unet.dtype), cross_attention_kwargs={"write": tokens})
    return tokens


def predict_with_reference(
    unet: UNet2DConditionModel,
    noisy: Float[Tensor, "b c h w"],
    t: float | Int[Tensor, " b"],
    text: Float[Tensor, "b tokens d"],
    tokens: Tokens,
) -> Float[Tensor, "b c h w"]:
    """The read pass: the UNet's output (float32) for `noisy`, which sees the reference through its `tokens`.

    Latents of views and reference may differ in size. With tokens of fewer items than the batch only its last items
    read them: guidance whose unconditional half, first in the batch, knows nothing of the reference.
    """
    output = unet(
        noisy.to(unet.dtype), t, encoder_hidden_states=text.to(unet.dtype), cross_attention_kwargs={"read": tokens}
    )
    return output.sample.float()
