"""A read that delivers layers in order, so that a model computes on the first while the last is under way.

    reader   |layer 0..5|layer 6..11|layer 12..17| ...
    model         waits |  layer 0  |  layer 1 ...

What has arrived of a layer is provisional: a record is verified when the last of its layers is
there. So whatever was computed from it may be used only after ``Stream.result`` has said that as
many blocks arrived as were promised; else it is thrown away and computed again. On a CUDA device
nobody waits on the CPU for bytes: a layer's wait makes the current stream wait for the copies.

Source: layer-wise overlap of loading and prefill as in Mooncake (Qin et al., FAST 2025) and CachedAttention
(Gao et al., ATC 2024).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch

from kvtier.errors import StreamBrokenError

#: Bytes of one block that are moved at a time; smaller pieces cost more in calls than they save in waiting.
PART_BYTES = 256 << 10


def parts_of(layers: int, block_bytes: int) -> list[slice]:
    """Neighbouring layers in groups of about ``PART_BYTES`` in each block, at least one layer each.

    Example:
        >>> parts_of(4, 2 * PART_BYTES)
        [slice(0, 2, None), slice(2, 4, None)]
    """
    size = max(1, min(layers, PART_BYTES * layers // block_bytes))
    return [slice(first, min(layers, first + size)) for first in range(0, layers, size)]


Result = TypeVar("Result")


class Arrivals:
    """Which layers are there. Tiers report, a model waits.

    Args:
        parts: The layers of each part, in order.
    """

    def __init__(self, parts: Sequence[slice]) -> None:
        self.parts = list(parts)
        self._part_of = {layer: number for number, part in enumerate(parts) for layer in range(part.start, part.stop)}
        self._missing: list[int] = [0] * len(self.parts)
        """By part, sources that have not reported it."""
        self._events: list[list[Any]] = [[] for _ in self.parts]
        self._began = self._over = self._whole = False
        self._state = threading.Condition()

    def expect(self, sources: int) -> None:
        """From now on so many sources report each part once, by calling ``arrived``."""
        with self._state:
            self._missing = [sources] * len(self.parts)
            self._began = True

    def arrived(self, part: int, event: Any = None) -> None:
        """One source has a part of all its blocks in place, or will have after an event; see ``Arrived``."""
        with self._state:
            self._missing[part] -= 1
            if event is not None:
                self._events[part].append(event)
            self._state.notify_all()

    def all_arrived(self) -> None:
        """One source has everything in place."""
        for part in range(len(self.parts)):
            self.arrived(part)

    def finish(self, *, whole: bool) -> None:
        """The read is over; every layer is there, or nothing more will come."""
        with self._state:
            self._over, self._whole = True, whole
            self._state.notify_all()

    def wait(self, layer: int) -> None:
        """Return when a layer is there, or, on a CUDA device, when the current stream will wait for it.

        Raises:
            StreamBrokenError: It will not come.
        """
        number = self._part_of[layer]
        with self._state:
            self._state.wait_for(lambda: self._over or (self._began and not self._missing[number]))
            if self._over and not self._whole:
                raise StreamBrokenError(f"layer {layer}: not every block arrived; ask result() how many did")
            events = self._events[number]
        for event in events:
            torch.cuda.current_stream(event.device).wait_event(event)


class Stream(Generic[Result]):
    """A read under way in a thread of its own.

    Args:
        arrivals: Told about every layer by ``work``.
        num_promised: Leading blocks that were held when it began.
        work: Reads; returns what ``result`` gives, and whether that is all that was promised.
    """

    def __init__(self, arrivals: Arrivals, num_promised: int, work: Callable[[], tuple[Result, bool]]) -> None:
        self.num_promised = num_promised
        self._arrivals = arrivals
        self._result: Result
        self._error: BaseException | None = None

        def run() -> None:
            whole = False
            try:
                self._result, whole = work()
            except BaseException as exc:  # noqa: BLE001  # it is raised where somebody is there to see it
                self._error = exc
            finally:
                arrivals.finish(whole=whole)

        self._thread: threading.Thread | None = threading.Thread(target=run, name="kvtier-stream", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread is to be had: what is held for the read is let go when it is done here
            self._thread = None
            run()

    def wait(self, layer: int) -> None:
        """Return when a layer of every promised block may be computed on; see ``Arrivals.wait``.

        Raises:
            StreamBrokenError: It will not come.
        """
        self._arrivals.wait(layer)

    def wait_for_end(self) -> None:
        """Return when nothing is copied any more, whatever came of it."""
        if self._thread is not None:
            self._thread.join()

    def result(self) -> Result:
        """What arrived, verified. Waits for the end of the read; the buffers are the caller's again."""
        self.wait_for_end()
        if self._error is not None:
            raise self._error
        return self._result
