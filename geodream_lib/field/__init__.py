"""Stage 3: the representation that is refined and its renderer (section 2.2 of the paper)."""

from geodream_lib.field.background import Background, solid_background, training_background
from geodream_lib.field.hash_encoding import HashEncoding
from geodream_lib.field.neus_field import NeuSField
from geodream_lib.field.occupancy import occupancy_grid
from geodream_lib.field.render import Rendered, normal_colors, render
from geodream_lib.field.texture import TextureDecoder

__all__ = [
    "Background",
    "HashEncoding",
    "NeuSField",
    "Rendered",
    "TextureDecoder",
    "normal_colors",
    "occupancy_grid",
    "render",
    "solid_background",
    "training_background",
]
