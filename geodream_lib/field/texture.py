"""Texture decoder f'_t of eq. (8)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TextureDecoder(nn.Module):
    """Colour of a point from its hash encoding and its position: c_p(x) = f'_t(h_Omega(x), x), eq. (8).

    One hidden layer, ReLU, no biases, sigmoid (appendix K: "a single-layer MLP"). Eq. (8) gives f'_t the position
    besides the encoding, and so does this module by default; the released code passes the encoding alone
    (`sees_position` False). Without biases an untrained decoder is grey at the centre of the object and near to it
    everywhere else.
    """

    def __init__(self, encoding_dimension: int, hidden: int = 64, sees_position: bool = True):
        super().__init__()
        self.config = {"encoding_dimension": encoding_dimension, "hidden": hidden, "sees_position": sees_position}
        self.hidden = nn.Linear(encoding_dimension + 3 * sees_position, hidden, bias=False)
        self.output = nn.Linear(hidden, 3, bias=False)

    def forward(self, encoding: Float[Tensor, "n dimension"], position: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colours in 0..1; `position` in the volume's cube [-1, 1]^3."""
        if self.config["sees_position"]:
            encoding = torch.cat([encoding, position], dim=-1)
        hidden = torch.relu(self.hidden(encoding))
        return torch.sigmoid(self.output(hidden))
