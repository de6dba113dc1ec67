"""Zero123++: one picture in, six fixed views of its object out."""

from geodream_lib.views.zero123plus.layout import zero123plus_viewpoints
from geodream_lib.views.zero123plus.model import Zero123Plus

__all__ = ["Zero123Plus", "zero123plus_viewpoints"]
