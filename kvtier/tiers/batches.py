"""Copying a batch of blocks across devices in few large copies.

    pool rows     | 4 | 5 | 6 | . | 9 |        neighbouring rows are one range of memory
    blocks        [a]-[b]-[c]     [d]          equally spaced views are one strided tensor

Queueing a copy costs the CPU microseconds, as long as a fast link needs for a good part of a block. So
rows that follow each other, and blocks that lie at equal distances in one buffer as those of a prompt
do, are copied by one call: one transfer over the link and one kernel that puts the words in place.

A range of layers of such rows is a rectangle in memory. torch has no call for that, so it is made
through the CUDA runtime that torch has loaded (``cudaMemcpy2DAsync``); without it, row by row.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

#: Bytes copied by one call, at most: a strided copy over the link needs as much memory on the device.
BATCH_BYTES = 256 << 20

#: The same where only some layers are copied, which takes memory even from pinned rows and is done many times.
PART_BATCH_BYTES = 32 << 20

_HOST_TO_DEVICE = 1


class Run(NamedTuple):
    """Blocks ``first`` to ``first + length`` of a batch, in the rows from ``row`` on."""

    row: int
    first: int
    length: int


class Piece(NamedTuple):
    """Neighbouring rows from ``row`` on, and the blocks that belong in them, ``[blocks, ...]``."""

    row: int
    blocks: torch.Tensor


def runs(rows: Sequence[int], longest: int) -> Iterator[Run]:
    """Neighbours among rows, in runs of ``longest`` at most.

    Example:
        >>> list(runs([4, 5, 6, 9], longest=2))
        [Run(row=4, first=0, length=2), Run(row=6, first=2, length=1), Run(row=9, first=3, length=1)]
    """
    first = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or i - first == longest or rows[i] != rows[i - 1] + 1:
            yield Run(rows[first], first, i - first)
            first = i


def stacked(blocks: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Equally spaced views of one buffer as one view ``[len(blocks), ...]``; None if that is not what they are."""
    head = blocks[0]
    step = blocks[1].storage_offset() - head.storage_offset() if len(blocks) > 1 else 0
    where = head.untyped_storage().data_ptr()
    for i, block in enumerate(blocks):
        same = block.shape == head.shape and block.stride() == head.stride() and block.device == head.device
        if not (same and block.untyped_storage().data_ptr() == where):
            return None
        if block.storage_offset() != head.storage_offset() + i * step:
            return None
    if step < 0:
        return None
    return head.as_strided((len(blocks), *head.shape), (step, *head.stride()), head.storage_offset())


def pieces(rows: Sequence[int], blocks: Sequence[torch.Tensor], longest: int) -> list[Piece]:
    """A batch as what one call each can copy, of ``longest`` blocks at most."""
    found: list[Piece] = []
    for run in runs(rows, longest):
        group = blocks[run.first : run.first + run.length]
        whole = stacked(group)
        if whole is not None:
            found.append(Piece(run.row, whole))
        else:
            found += [Piece(run.row + i, block[None]) for i, block in enumerate(group)]
    return found


def copy_across(pool: torch.Tensor, rows: Sequence[int], blocks: Sequence[torch.Tensor], *, out: bool) -> None:
    """Queue copies between rows of a pool and blocks on the current streams; the caller waits for them.

    Args:
        pool: ``uint8`` of shape ``[num_rows, block_bytes]``, on any device.
        rows: A row for each block.
        blocks: ``uint8`` of ``block_bytes`` elements each, any shape and strides, on any device.
        out: From the rows to the blocks; else the other way.
    """
    for row, batch in pieces(rows, blocks, max(1, BATCH_BYTES // pool.shape[1])):
        flat = pool[row : row + len(batch)].view(batch.shape)
        if out:
            _copy(batch, flat)
        else:
            _copy(flat, batch)


def copy_parts(
    pool: torch.Tensor, rows: Sequence[int], blocks: Sequence[torch.Tensor], parts: Sequence[slice]
) -> Iterator[int]:
    """Queue copies from rows of a pool to blocks as ``copy_across`` does, some layers of all blocks at a time.

    Args:
        pool: As for ``copy_across``.
        rows: As for ``copy_across``.
        blocks: As for ``copy_across``, each shaped ``[layers, ...]``.
        parts: Ranges of layers, in the order in which they are copied.

    Yields:
        The number of each part, once its copies are queued.
    """
    if not blocks:
        yield from range(len(parts))
        return
    layer_bytes = pool.shape[1] // blocks[0].shape[0]
    part_bytes = layer_bytes * max(part.stop - part.start for part in parts)
    batches = pieces(rows, blocks, max(1, PART_BATCH_BYTES // part_bytes))
    for number, layers in enumerate(parts):
        for row, batch in batches:
            _copy_layers(pool[row : row + len(batch)], batch, layers)
        yield number


def wait_for(*tensors: torch.Tensor) -> None:
    """Return when everything queued on the current streams of these tensors' devices is done."""
    for device in {tensor.device for tensor in tensors if tensor.device.type != "cpu"}:
        torch.accelerator.current_stream(device).synchronize()


def _copy_layers(flat: torch.Tensor, batch: torch.Tensor, layers: slice) -> None:
    """Some layers of neighbouring rows to the same layers of a batch."""
    target = batch[:, layers]
    layer_bytes = flat.shape[1] // batch.shape[1]
    piece = flat[:, layers.start * layer_bytes : layers.stop * layer_bytes]
    if flat.device == batch.device:
        _copy(target, piece.view(target.shape))
        return
    landed = torch.empty(piece.shape, dtype=torch.uint8, device=batch.device)
    runtime = _cuda_runtime() if flat.is_pinned() and batch.is_cuda else None
    if runtime is None:
        for there, here in zip(landed, piece, strict=True):
            there.copy_(here, non_blocking=True)
    else:
        _copy_rectangle(runtime, landed, piece)
    _copy(target, landed.view(target.shape))


def _copy_rectangle(runtime: Any, landed: torch.Tensor, piece: torch.Tensor) -> None:
    status = runtime.cudaMemcpy2DAsync(
        ctypes.c_void_p(landed.data_ptr()),
        ctypes.c_size_t(landed.stride(0)),
        ctypes.c_void_p(piece.data_ptr()),
        ctypes.c_size_t(piece.stride(0)),
        ctypes.c_size_t(piece.shape[1]),
        ctypes.c_size_t(piece.shape[0]),
        ctypes.c_int(_HOST_TO_DEVICE),
        ctypes.c_void_p(torch.cuda.current_stream(landed.device).cuda_stream),
    )
    if status:
        raise RuntimeError(f"cudaMemcpy2DAsync failed with status {status}")


@cache
def _cuda_runtime() -> Any:
    """The CUDA runtime that torch uses, if it can be called by name."""
    version = (torch.version.cuda or "").split(".")[0]
    try:
        return ctypes.CDLL(f"libcudart.so.{version}")
    except OSError:
        return None


def _copy(dst: torch.Tensor, src: torch.Tensor) -> None:
    if dst.numel() and _holds_words(dst) and _holds_words(src):  # a device copies words, not bytes
        dst, src = dst.view(torch.int64), src.view(torch.int64)
    dst.copy_(src, non_blocking=True)


def _holds_words(blocks: torch.Tensor) -> bool:
    aligned = blocks.storage_offset() % 8 == 0 and blocks.data_ptr() % 8 == 0
    rows_aligned = all(stride % 8 == 0 for stride in blocks.stride()[:-1])
    return blocks.stride(-1) == 1 and blocks.shape[-1] % 8 == 0 and aligned and rows_aligned
