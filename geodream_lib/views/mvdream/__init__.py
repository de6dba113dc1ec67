"""MVDream: words in, four views of one object out."""

from geodream_lib.views.mvdream.model import MVDream

__all__ = ["MVDream"]
