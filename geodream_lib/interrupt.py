"""Ctrl-C between two steps instead of inside one: what was interrupted can then go on as if it had not been."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupt_later() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed (or a kernel interrupted) since the block began.

    The block decides when to stop. Pressed a second time it stops at once, by KeyboardInterrupt. In another thread than
    the main one, or where interrupts are ignored, nothing changes: Python delivers them to the main thread alone.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield lambda: False
        return
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
