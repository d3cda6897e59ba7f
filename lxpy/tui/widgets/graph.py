"""A graph of values over time, of block characters: eight steps to a cell."""

from collections.abc import Sequence

_BLOCKS = " ▁▂▃▄▅▆▇█"


def graph(values: Sequence[float], width: int, height: int, top: float) -> list[str]:
    """Lines from the top down; the newest value is at the right edge.

    Args:
        values: oldest first; only the last `width` are drawn. Negative ones are unknown and left blank.
        top: the value at the upper edge.
    """
    shown = list(values)[-width:]
    steps = [min(height * 8, max(0, round(v / top * height * 8))) if top > 0 else 0 for v in shown]
    # Something is more than nothing, however little.
    steps = [max(step, 1) if value > 0 else step for step, value in zip(steps, shown, strict=True)]
    lines = []
    for row in range(height - 1, -1, -1):
        cells = "".join(_BLOCKS[min(8, max(0, step - row * 8))] for step in steps)
        lines.append(cells.rjust(width))
    return lines


def round_top(value: float, least: float) -> float:
    """A fitting upper edge: 1, 2 or 5 times a power of ten above `value`."""
    top = least
    while top < value:
        for factor in (2.0, 2.5, 2.0):
            top *= factor
            if top >= value:
                break
    return top
