"""Which size a picture is trained at: sd-scripts' aspect ratio buckets (v0.10.1, ``BucketManager``), from its behaviour.

Sizes are (width, height) in pixels. Two ways: *predefined* buckets cover an area, and every picture goes to the one with
the nearest aspect ratio, enlarged or reduced; with *no upscale* a picture keeps its size unless its area exceeds the
resolution's, and the bucket is that size rounded down to ``steps``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Placement:
    """A picture's bucket, the size it is resized to before the centre crop, and its aspect ratio error."""

    bucket: Size
    resized: Size
    aspect_error: float


@dataclass(frozen=True, slots=True)
class Buckets:
    """The buckets of one dataset."""

    resolution: Size
    enabled: bool
    no_upscale: bool
    smallest: int = 256
    largest: int = 1024
    steps: int = 64

    def problems(self) -> list[str]:
        """What sd-scripts refuses: bounds that do not enclose the resolution, a step that leaves nothing."""
        found: list[str] = []
        if self.steps < 1:
            found.append(f"bucket_reso_steps must be at least 1, is {self.steps}")
        elif self.enabled and not self.no_upscale:
            low, high = self.bounds()
            if min(self.resolution) < low:
                found.append(f"min_bucket_reso {low} must be equal or less than resolution {self.resolution}")
            if max(self.resolution) > high:
                found.append(f"max_bucket_reso {high} must be equal or greater than resolution {self.resolution}")
        return found

    def bounds(self) -> tuple[int, int]:
        """Smallest and largest side, moved outwards to multiples of the step."""
        return self.smallest - self.smallest % self.steps, self.largest + -self.largest % self.steps

    def predefined(self) -> list[Size]:
        """All buckets that cover about the resolution's area, sorted; one fixed size where bucketing is off."""
        if not self.enabled:
            return [self.resolution]
        area = self.resolution[0] * self.resolution[1]
        low, high = self.bounds()
        square = int(math.sqrt(area) // self.steps) * self.steps
        found = {(square, square)}
        for width in range(low, high + 1, self.steps):
            if width == 0:
                continue
            height = min(high, int((area // width) // self.steps) * self.steps)
            if height >= max(low, 1):
                found |= {(width, height), (height, width)}
        return sorted(found)

    def place(self, size: Size) -> Placement:
        """Where a picture of ``size`` goes.

        Raises:
            ValueError: the picture is smaller than one step, or (bucketing off) its shape cannot fill the resolution.
        """
        if not self.enabled and size != self.resolution:
            message = f"is {size[0]}x{size[1]}, the resolution is {self.resolution}, and bucketing is off"
            raise ValueError(message)
        if self.enabled and self.no_upscale:
            return self._without_upscale(size)
        return self._nearest(size)

    def _nearest(self, size: Size) -> Placement:
        width, height = size
        aspect = width / height
        sizes = self.predefined()
        bucket = size if size in sizes else min(sizes, key=lambda other: abs(other[0] / other[1] - aspect))
        scale = bucket[1] / height if aspect > bucket[0] / bucket[1] else bucket[0] / width
        resized = (int(width * scale + 0.5), int(height * scale + 0.5))
        return Placement(bucket, resized, bucket[0] / bucket[1] - aspect)

    def _without_upscale(self, size: Size) -> Placement:
        width, height = size
        aspect = width / height
        area = self.resolution[0] * self.resolution[1]
        resized = size
        if width * height > area:
            ideal_width = math.sqrt(area * aspect)
            by_width = self._floor(ideal_width)
            by_height = self._floor(area / ideal_width)
            # Round one side to the step; the other side follows; keep the choice whose rounded shape is nearer.
            width_choice = _ratio(by_width, self._floor(by_width / aspect))
            height_choice = _ratio(self._floor(by_height * aspect), by_height)
            if abs(width_choice - aspect) < abs(height_choice - aspect):
                resized = (by_width, int(by_width / aspect + 0.5))
            else:
                resized = (int(by_height * aspect + 0.5), by_height)
        bucket = (resized[0] - resized[0] % self.steps, resized[1] - resized[1] % self.steps)
        if 0 in bucket:
            message = f"a picture of {width}x{height} has no bucket: a side is below bucket_reso_steps {self.steps}"
            raise ValueError(message)
        return Placement(bucket, resized, bucket[0] / bucket[1] - aspect)

    def _floor(self, length: float) -> int:
        rounded = int(length + 0.5)
        return rounded - rounded % self.steps


def _ratio(width: int, height: int) -> float:
    """Width over height; infinitely far from any shape where a side was rounded down to nothing."""
    return width / height if width and height else math.inf
