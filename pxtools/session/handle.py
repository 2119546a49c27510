"""Work that goes on while the notebook does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pxtools.engines.waiting import Waiting, as_told
from pxtools.errors import PxTimeout


class Handle:
    """Work in the background: a thread of this process waits for it, the engines do it.

    Parameters
    ----------
    title
        What it is, in a few words.
    work
        Is called in the thread, and returns the result. What it sends first is copied when this constructor returns:
        later changes in the notebook do not reach it.
    take
        Is called once with the result, by the first `result()` and in its thread: shows output, binds names.
    partial
        Returns what there is so far.

    Examples
    --------
    >>> handle = Handle("an example", lambda: 6 * 7)
    >>> handle.result()
    42
    >>> handle.done
    True
    """

    def __init__(
        self,
        title: str,
        work: Callable[[], Any],
        take: Callable[[Any], Any] | None = None,
        partial: Callable[[], Any] | None = None,
    ) -> None:
        self.title = title
        self._work = work
        self._take = take
        self._partial = partial
        self._began = time.monotonic()
        self._words = ""
        self._value: Any = None
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._waiting = Waiting(display=self)
        threading.Thread(target=self._run, name=f"pxtools: {title}", daemon=True).start()
        try:
            self._waiting.begun.wait()
        except KeyboardInterrupt:
            self.cancel()
            raise

    def _run(self) -> None:
        try:
            with as_told(self._waiting):
                self._value = self._work()
        except BaseException as error:
            self._error = error
        finally:
            self._words = f"{self._words} · {time.monotonic() - self._began:.1f} s".removeprefix(" · ")
            self._ended.set()
            self._waiting.begun.set()

    def update(self, text: str, fraction: float | None = None) -> None:
        """Take note of how far the work is; called by the work."""
        self._words = text

    def close(self, text: str | None = None, fraction: float | None = None) -> None:
        """Take note of how far the work came; called by the work."""
        self._words = text or self._words

    @property
    def done(self) -> bool:
        """Whether the work has ended, well or badly."""
        return self._ended.is_set()

    @property
    def progress(self) -> str:
        """How far it is, in words: what is done, the rate, the time that is left."""
        return self._words or "under way"

    @property
    def partial(self) -> Any:
        """What there is so far: of a map, results by item number; of a sampling, its draws; else None."""
        return None if self._partial is None else self._partial()

    def cancel(self) -> None:
        """Stop the work: its engines are interrupted. Returns at once; `result()` then raises `PxCancelled`."""
        self._waiting.cancelled.set()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the result, or raise what went wrong.

        Ctrl-C ends this wait only; `cancel` ends the work.

        Parameters
        ----------
        timeout
            Seconds to wait at most; the work goes on after them.

        Raises
        ------
        PxTimeout
            It is not done after `timeout` seconds.
        PxCancelled
            It was cancelled.
        """
        if not self._ended.wait(timeout):
            raise PxTimeout(f"not done after {timeout:g} s; the work goes on.\nAsk again, or `.cancel()` it.")
        if self._error is not None:
            raise self._error
        if self._take is not None:
            take, self._take = self._take, None
            self._value = take(self._value)
        return self._value

    def __repr__(self) -> str:
        state = "" if not self.done else ", done" if self._error is None else f", {type(self._error).__name__}"
        return f"<{self.title}: {self.progress}{state}>"
