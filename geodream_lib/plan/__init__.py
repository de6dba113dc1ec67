"""What a run will take, counted before anything is loaded: `geodream plan`."""

from geodream_lib.plan.fit import check_fits, check_plan, device_memory
from geodream_lib.plan.report import format_plan
from geodream_lib.plan.stages import make_plan
from geodream_lib.plan.step import Step

__all__ = ["Step", "check_fits", "check_plan", "device_memory", "format_plan", "make_plan"]
