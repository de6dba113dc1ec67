"""The lab world: objects, captions and exact images, small enough that networks can learn it on a CPU."""

from geodream_lib.lab.captions import CONTENT_WORDS, LEXICON, VIEWS, caption, composition_caption, view_word
from geodream_lib.lab.compositions import COMPOSITIONS, HELD_OUT_COMPOSITIONS, Composition, sample_composition
from geodream_lib.lab.geometry import albedo, mesh, normals, sdf
from geodream_lib.lab.objects import CATEGORIES, HELD_OUT, LabObject, is_symmetric, sample_object
from geodream_lib.lab.render import LabRender, render, render_rgba
from geodream_lib.lab.shape import COLORS

__all__ = [
    "CATEGORIES",
    "COLORS",
    "COMPOSITIONS",
    "CONTENT_WORDS",
    "HELD_OUT",
    "HELD_OUT_COMPOSITIONS",
    "LEXICON",
    "VIEWS",
    "Composition",
    "LabObject",
    "LabRender",
    "albedo",
    "caption",
    "composition_caption",
    "is_symmetric",
    "mesh",
    "normals",
    "render",
    "render_rgba",
    "sample_composition",
    "sample_object",
    "sdf",
    "view_word",
]
