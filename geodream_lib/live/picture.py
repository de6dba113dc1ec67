"""A picture in a notebook that is drawn again and again, and how often it may be."""

import io
import time
from collections.abc import Callable

from IPython.display import DisplayHandle
from IPython.display import Image as Shown
from matplotlib.figure import Figure
from PIL import Image


class LivePicture:
    """An ordinary PNG output of a cell that newer drawings replace, also after the cell has ended.

    No widget: the page keeps the last drawing, and it is seen without a kernel.
    """

    def __init__(self) -> None:
        self.png = b""
        self._handle, self._shown = DisplayHandle(), False

    def show(self) -> None:
        """Put what was drawn last into the output of the cell that runs now."""
        self._shown = True
        self._handle.display(Shown(data=self.png, format="png"))

    def replace(self, drawing: Figure | Image.Image) -> None:
        """Draw anew, wherever the picture is shown."""
        stream = io.BytesIO()
        if isinstance(drawing, Figure):
            drawing.savefig(stream, format="png")
        else:
            drawing.save(stream, "png")
        self.png = stream.getvalue()
        if self._shown:
            self._handle.update(Shown(data=self.png, format="png"))


class Pace:
    """Does something that takes time as often as it may be done.

    Args:
        seconds: shortest time from one start to the next.
        share: largest part of all time that it may take, 0..1.
    """

    def __init__(self, seconds: float, share: float) -> None:
        self.seconds, self.share, self._next = seconds, share, 0.0

    def do(self, action: Callable[[], None]) -> None:
        """Do it, unless it is too early."""
        start = time.monotonic()
        if start >= self._next:
            action()
            self._next = start + max(self.seconds, (time.monotonic() - start) / self.share)
