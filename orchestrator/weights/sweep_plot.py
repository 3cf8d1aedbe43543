"""Draw a sweep as SVG: size against the retained norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.weights.sweep import Sweep


def lines(result: Sweep) -> Iterator[str]:
    """Yield the lines of an SVG: MiB against retained norm, also by block."""
    width, height, edge = 640, 400, 56
    largest = max((row.tensor_bytes for row in result.rows), default=1) or 1
    lowest = min((share for row in result.rows for share in (row.retained, *row.blocks.values())), default=0.0)
    lowest = min(lowest, 0.999)

    def point(size: int, share: float) -> str:
        x = edge + (width - 2 * edge) * size / largest
        return f"{x:.1f},{height - edge - (height - 2 * edge) * (share - lowest) / (1 - lowest):.1f}"

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    yield f'<path d="M{edge},{edge} V{height - edge} H{width - edge}" stroke="black" fill="none"/>'
    yield f'<text x="{width // 2}" y="{height - 16}" text-anchor="middle">tensor bytes, up to {largest / 2**20:.1f} MiB</text>'
    yield f'<text x="{edge}" y="{edge - 12}">Frobenius norm retained, {lowest:.3%} to 100 %</text>'
    for name in dict.fromkeys(row.block_weights for row in result.rows):
        rows = sorted((row for row in result.rows if row.block_weights == name), key=lambda row: row.tensor_bytes)
        for block in rows[0].blocks:
            line = " ".join(point(row.tensor_bytes, row.blocks[block]) for row in rows)
            yield f'<polyline points="{line}" fill="none" stroke="#9aa" stroke-width="1"><title>{block}</title></polyline>'
        line = " ".join(point(row.tensor_bytes, row.retained) for row in rows)
        yield f'<polyline points="{line}" fill="none" stroke="#c33" stroke-width="3"/>'
        for row in rows:
            x, y = point(row.tensor_bytes, row.retained).split(",")
            yield f'<circle cx="{x}" cy="{y}" r="4" fill="#c33"/><text x="{x}" y="{float(y) + 18:.1f}">{row.sv_ratio:g}</text>'
    yield "</svg>"
