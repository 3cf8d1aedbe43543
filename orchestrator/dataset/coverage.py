"""Count the views of a character, by height and direction."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import naming

if TYPE_CHECKING:
    from orchestrator.dataset.layout import Layout
    from orchestrator.recipe import Dataset

HEIGHTS: Final = ("0", "1", "2")
HEIGHT_NAMES: Final = ("level", "from above", "from below")
DIRECTIONS: Final = tuple("01234567")


@dataclass(frozen=True, slots=True)
class Coverage:
    """Number of originals of each view, for one framing of one source."""

    source: str
    framing: str
    counts: dict[tuple[str, str], int]
    """By height and direction digits."""
    mirrored: frozenset[tuple[str, str]]
    """Views without an image that a flip makes of another view."""

    def missing(self) -> list[str]:
        """Return the names of the views without an image or a flip."""
        views = [(height, direction) for height in HEIGHTS for direction in DIRECTIONS]
        return [f"{self.framing}{''.join(view)}" for view in views if view not in self.counts and view not in self.mirrored]

    def as_json(self) -> dict[str, Any]:
        """Return rows by height, columns by direction."""
        rows = [[self.counts.get((height, direction), 0) for direction in DIRECTIONS] for height in HEIGHTS]
        return {
            "source": self.source,
            "framing": self.framing,
            "heights_x_directions": rows,
            "mirrored": sorted("".join(view) for view in self.mirrored),
            "missing": self.missing(),
        }


def coverage(layout: Layout, dataset: Dataset) -> tuple[Coverage, ...]:
    """Return the coverage of every source with captions by view."""
    shown: dict[tuple[str, str], dict[tuple[str, str], set[str]]] = defaultdict(lambda: defaultdict(set))
    flips: dict[str, bool] = {}
    for folder in layout.folders:
        if dataset.sources[folder.source].captions != "view":
            continue
        flips[folder.source] = folder.flip
        for image in folder.images:
            view = naming.view(image.name)
            if view:  # an image with a caption of its own may have any name
                stem = image.role.rpartition("/")[2]
                shown[folder.source, view.framing][view.height, view.direction].add(stem)
    result = []
    for (source, framing), views in sorted(shown.items()):
        counts = {view: len(roles) for view, roles in views.items()}
        # The mirror image of direction n is 8 - n: directions go around in steps of 45 degrees.
        flipped = {(height, str(-int(direction) % 8)) for height, direction in counts}
        result.append(Coverage(source, framing, counts, frozenset(flipped - set(counts)) if flips[source] else frozenset()))
    return tuple(result)
