"""A message when a long run has ended or failed, to any of the services that apprise knows (extra ``notify``).

One setting: ``notify = "ntfy://my-topic"`` in the user's config.toml, or $KRNK_NOTIFY. A message that cannot be sent never
changes what the run comes to.
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from typing import TYPE_CHECKING, Final

from orchestrator.run.context import Status
from orchestrator.system import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.run.context import Outcome

LONG_SECONDS: Final = 60.0


def addresses() -> tuple[str, ...]:
    """Return where messages go: $KRNK_NOTIFY (several apart by spaces), or the user's setting; empty: nowhere."""
    said = os.environ.get("KRNK_NOTIFY")
    if said is not None:
        return tuple(said.split())
    found = settings.read().get("notify", [])
    return (found,) if isinstance(found, str) else tuple(found)


def worth(outcomes: Sequence[Outcome], seconds: float) -> bool:
    """Return whether somebody may be waiting: a failure, or a run of a minute or more that did something."""
    if any(outcome.status is Status.FAILED for outcome in outcomes):
        return True
    return seconds >= LONG_SECONDS and any(outcome.status is not Status.CACHED for outcome in outcomes)


def message(outcomes: Sequence[Outcome], seconds: float) -> tuple[str, str]:
    """Return title and text of the message; the text names what failed and why, in the first line of its cause."""
    counts = Counter(outcome.status for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.status is Status.FAILED]
    names = sorted({outcome.step.recipe or outcome.step.owner for outcome in outcomes})
    what = names[0] if len(names) == 1 else f"{len(names)} recipes"
    well = all(outcome.status.ok for outcome in outcomes)
    how = "failed" if failed else ("done" if well else "stopped")
    minutes = round(seconds / 60)
    lines = [", ".join(f"{count} {status}" for status, count in counts.items()) + f" in {minutes} min"]
    lines += [f"{one.step.name}: {one.problem.what.splitlines()[0]}" for one in failed if one.problem is not None]
    return f"{what}: {how}", "\n".join(lines)


def ended(outcomes: Sequence[Outcome], seconds: float) -> str:
    """Send the message if there is an address and it is worth one; return what went wrong with that, or ""."""
    where = addresses()
    if not where or not worth(outcomes, seconds):
        return ""
    if importlib.util.find_spec("apprise") is None:
        return "no message was sent: apprise is not installed  (pip install 'krnk[notify]')"
    import apprise  # noqa: PLC0415 - an extra

    service = apprise.Apprise()
    unknown = [_scheme(address) for address in where if not service.add(address)]
    if unknown:
        return f"no message was sent: {', '.join(unknown)} is no address that apprise knows"
    title, text = message(outcomes, seconds)
    kind = apprise.NotifyType.FAILURE if title.endswith("failed") else apprise.NotifyType.SUCCESS
    if not service.notify(body=text, title=title, notify_type=kind):
        return f"the message to {', '.join(map(_scheme, where))} could not be sent"
    return ""


def _scheme(address: str) -> str:
    """Return an address without what may be a password."""
    return f"{address.partition(':')[0]}://…"
