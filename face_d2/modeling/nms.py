"""Greedy suppression that stops when enough is kept."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["first_kept"]

_FIRST = 4  # boxes looked at first, per box that may be kept; twice as many every further time


def first_kept(
    suppress: Callable[[Tensor, Tensor], Tensor], boxes: Tensor, scores: Tensor, limit: int
) -> Tensor:
    """What a greedy suppression keeps, cut off after ``limit``, in bounded time and memory.

    Which of the best m boxes stay does not depend on the others, so the best are looked at alone,
    twice as many each time, until enough of them stay. Before that fewer than ``limit`` stay, so
    that N boxes cost about 2 N ``limit`` comparisons at most. All at once, N boxes that hardly
    overlap cost N^2 / 2 of them on a CPU and N^2 / 8 bytes on a GPU.

    Args:
        suppress: (boxes (m, 4), scores (m,)) to the indices kept, best score first.
        boxes: (N, 4).
        scores: (N,).
        limit: most boxes kept, at least 1.

    Returns:
        (at most ``limit``,) indices, best score first: the first of ``suppress(boxes, scores)``.
    """
    order = scores.argsort(descending=True, stable=True)
    looked_at = _FIRST * limit
    while True:
        best = order[:looked_at]
        kept = best[suppress(boxes[best], scores[best])]
        if len(kept) >= limit or looked_at >= len(order):
            return kept[:limit]
        looked_at *= 2
