"""Instruments for a notebook: schedules under the hand, refinements under the eye (core ipywidgets and matplotlib).

The sliders need a kernel; what they are about is an ordinary picture in the cell's output, which stays on the page.
"""

from geodream_lib.live.explorer import ScheduleExplorer
from geodream_lib.live.panel import LivePanel

__all__ = ["LivePanel", "ScheduleExplorer"]
