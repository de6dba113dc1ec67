"""MVDream's network: Stable Diffusion's UNet in which the views of one object see each other and know their cameras.

Shi et al., "MVDream: Multi-view Diffusion for 3D Generation", 2023. Two changes turn the 2D network into a multi-view
one, and neither alters a weight of it: self-attention runs over the tokens of all views of an object, and an embedding
of the camera is added to that of the timestep.
"""

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.embeddings import TimestepEmbedding
from jaxtyping import Float, Int
from torch import Tensor, nn

from geodream_lib.errors import InputError


class ViewAttention:
    """Attention for a batch in which every `num_frames` consecutive items are the views of one object.

    Self-attention joins the tokens of these views, (b f) l c -> b (f l) c, so each token attends to all views.
    Cross-attention stays within a view. The projections are those of `attn`: there is no new parameter.
    """

    def __init__(self) -> None:
        self.attend = AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "n tokens c"],
        encoder_hidden_states: Float[Tensor, "n text d"] | None = None,
        attention_mask: Tensor | None = None,
        num_frames: int = 1,
    ) -> Float[Tensor, "n tokens c"]:
        if encoder_hidden_states is not None:
            return self.attend(attn, hidden_states, encoder_hidden_states, attention_mask)
        tokens = hidden_states.shape[1]
        joined = hidden_states.unflatten(0, (-1, num_frames)).flatten(1, 2)
        return self.attend(attn, joined, None, attention_mask).unflatten(1, (num_frames, tokens)).flatten(0, 1)


class MultiViewUNet(nn.Module):
    """The noise in the views of one or more objects, given text and cameras.

    Args:
        unet: Stable Diffusion's, 2D; its self-attentions and its slot for class labels are taken over.
        camera_embedding: Linear, SiLU, Linear, from the 16 numbers of a camera (`mvdream_condition`) to the width of
            the time embedding.
    """

    def __init__(self, unet: UNet2DConditionModel, camera_embedding: TimestepEmbedding) -> None:
        super().__init__()
        self.unet, self.camera_embedding = unet, camera_embedding
        unet.set_attn_processor(ViewAttention())
        # What enters the slot for class labels is added to the time embedding.
        unet.class_embedding = nn.Identity()

    def forward(
        self,
        noisy: Float[Tensor, "n c h w"],
        t: Int[Tensor, " n"],
        text: Float[Tensor, "n tokens d"],
        camera: Float[Tensor, "n 16"] | None,
        num_frames: int,
    ) -> Float[Tensor, "n c h w"]:
        """Noise of every view, float32.

        Args:
            noisy: latents, the `num_frames` views of an object one after the other.
            text: hidden states of the text encoder, one row per view.
            camera: without it the term is left out, which is MVDream's 2D mode; with `num_frames` 1 too, the network is
                the 2D one it was made of.

        Raises:
            InputError: the views do not make whole objects.
        """
        if len(noisy) % num_frames:
            raise InputError(f"{len(noisy)} views; expected a multiple of num_frames, {num_frames} for each object")
        dtype = self.unet.conv_in.weight.dtype
        if camera is None:
            added = noisy.new_zeros(len(noisy), self.camera_embedding.linear_2.out_features)
        else:
            added = self.camera_embedding(camera.to(dtype))
        output = self.unet(
            noisy.to(dtype),
            t,
            encoder_hidden_states=text.to(dtype),
            class_labels=added,
            cross_attention_kwargs={"num_frames": num_frames},
        )
        return output.sample.float()
