"""The loop that every greedy suppression here is. NumPy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["greedy"]

_BLOCK = 64  # boxes compared with all that follow at a time


def greedy(
    order: NDArray[np.integer],
    drops: Callable[[NDArray[np.integer], NDArray[np.integer]], NDArray[np.bool_]],
    limit: int | None = None,
) -> NDArray[np.intp]:
    """Keeps the first box, drops what it suppresses, and so on with what is left.

    Args:
        order: (N,) indices of the boxes that take part, the most trusted first.
        drops: indices (B,) and (W,) to (B, W): which boxes of the first suppress which of the
            second. Never asked for more than 64 of the first, so that memory grows with N alone.
        limit: most boxes kept; None for all.

    Returns:
        Indices of the boxes kept, in ``order``.
    """
    left = np.asarray(order, dtype=np.intp)
    limit = len(left) if limit is None else limit
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        head, left = left[:_BLOCK], left[_BLOCK:]
        hits = drops(head, head)
        alive = np.ones(len(head), dtype=bool)
        for row in range(len(head)):
            if alive[row]:
                alive[row + 1 :] &= ~hits[row, row + 1 :]
        head = head[alive]
        kept.extend(head.tolist())
        left = left[~drops(head, left).any(axis=0)]
    return np.asarray(kept[:limit], dtype=np.intp)
