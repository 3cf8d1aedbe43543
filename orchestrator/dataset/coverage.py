"""Which views of a character the pictures show: heights by angles."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import naming

if TYPE_CHECKING:
    from orchestrator.dataset.layout import Layout
    from orchestrator.recipe import Dataset

HEIGHTS: Final = ("0", "1", "2")
DIRECTIONS: Final = tuple("01234567")


@dataclass(frozen=True, slots=True)
class Coverage:
    """One framing of one source: how many originals show each view, by height and direction digits."""

    source: str
    framing: str
    counts: dict[tuple[str, str], int]
    mirrored: frozenset[tuple[str, str]]
    """Views without a picture that flips make out of another one."""

    def missing(self) -> list[str]:
        """Return the views that no picture shows and no flip makes, as names."""
        every = [(height, direction) for height in HEIGHTS for direction in DIRECTIONS]
        return [f"{self.framing}{''.join(one)}" for one in every if one not in self.counts and one not in self.mirrored]

    def as_json(self) -> dict[str, Any]:
        """Return rows by height, columns by direction."""
        rows = [[self.counts.get((height, direction), 0) for direction in DIRECTIONS] for height in HEIGHTS]
        return {
            "source": self.source,
            "framing": self.framing,
            "heights_x_directions": rows,
            "mirrored": sorted("".join(one) for one in self.mirrored),
            "missing": self.missing(),
        }


def coverage(layout: Layout, dataset: Dataset) -> tuple[Coverage, ...]:
    """Return the coverage of every source that is captioned by view, a framing each."""
    shown: dict[tuple[str, str], dict[tuple[str, str], set[str]]] = defaultdict(lambda: defaultdict(set))
    flips: dict[str, bool] = {}
    for folder in layout.folders:
        if dataset.sources[folder.source].captions != "view":
            continue
        flips[folder.source] = folder.flip
        for picture in folder.pictures:
            view = naming.view(picture.name)
            if view:  # a picture with a caption of its own may be named freely
                stem = picture.role.rpartition("/")[2]
                shown[folder.source, view.framing][view.height, view.direction].add(stem)
    result = []
    for (source, framing), views in sorted(shown.items()):
        counts = {view: len(roles) for view, roles in views.items()}
        # Seen from the other side is 8 - n: directions go around in steps of 45 degrees.
        other = {(height, str(-int(direction) % 8)) for height, direction in counts}
        result.append(Coverage(source, framing, counts, frozenset(other - set(counts)) if flips[source] else frozenset()))
    return tuple(result)
