"""Memory for models' caches, used again for the next prompt.

The first touch of fresh memory costs many times a copy into memory already touched, and a
prompt's cache is hundreds of megabytes. A buffer returns to the arena when the last tensor on
its storage is gone, views included: torch keeps the array it was made from alive exactly that
long. On a CUDA device torch's own caching allocator does this already.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

#: Bytes kept for reuse; more than that goes back to the system.
_KEEP_BYTES = 4 << 30


class Arena:
    """Hands out tensors over reused memory. Safe to use from many threads and from finalizers."""

    def __init__(self) -> None:
        self._free: dict[int, NDArray[np.uint8]] = {}
        """By identity, oldest first. A dict, because taking an entry is one atomic step."""

    def take(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A tensor with undefined but finite-or-stale contents; on the CPU, over memory already touched."""
        if device.type != "cpu":
            return torch.empty(tuple(shape), dtype=dtype, device=device)
        num_bytes = math.prod(shape) * dtype.itemsize
        memory = self._find(num_bytes)
        loan = memory[:num_bytes].view()
        weakref.finalize(loan, self._give_back, memory)
        return torch.from_numpy(loan).view(dtype).view(tuple(shape))

    def _find(self, num_bytes: int) -> NDArray[np.uint8]:
        """The smallest free buffer that is large enough, or a new one, rounded up to be useful again."""
        # No lock: a finalizer may give memory back inside this very call, in this very thread.
        for memory in sorted(self._free.values(), key=len):  # a copy, made before anything else runs
            if len(memory) >= num_bytes and self._free.pop(id(memory), None) is not None:
                return memory
        rounded = 1 << max(20, (num_bytes - 1).bit_length() - 2)
        fresh = np.empty(-(-num_bytes // rounded) * rounded, np.uint8)
        fresh.fill(0)
        return fresh

    def _give_back(self, memory: NDArray[np.uint8]) -> None:
        self._free[id(memory)] = memory
        while sum(map(len, list(self._free.values()))) > _KEEP_BYTES:
            self._free.pop(next(iter(list(self._free))), None)
