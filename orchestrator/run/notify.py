"""Notification of the end of a long run (extra ``notify``).

Set ``notify = "ntfy://my-topic"`` in the user's config.toml, or $KRNK_NOTIFY. A message that cannot be sent never changes the
outcome of the run.
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
    """Return the addresses of $KRNK_NOTIFY, else of the user's settings."""
    variable = os.environ.get("KRNK_NOTIFY")
    if variable is not None:
        return tuple(variable.split())
    setting = settings.read().get("notify", [])
    return (setting,) if isinstance(setting, str) else tuple(setting)


def deserves_message(outcomes: Sequence[Outcome], seconds: float) -> bool:
    """Return whether a run failed or worked for a minute or more."""
    if any(outcome.status is Status.FAILED for outcome in outcomes):
        return True
    return seconds >= LONG_SECONDS and any(outcome.status is not Status.CACHED for outcome in outcomes)


def message(outcomes: Sequence[Outcome], seconds: float) -> tuple[str, str]:
    """Return title and text of the message.

    The text names each failed step with the first line of its cause.
    """
    counts = Counter(outcome.status for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.status is Status.FAILED]
    names = sorted({outcome.step.recipe or outcome.step.owner for outcome in outcomes})
    what = names[0] if len(names) == 1 else f"{len(names)} recipes"
    well = all(outcome.status.ok for outcome in outcomes)
    how = "failed" if failed else ("done" if well else "stopped")
    minutes = round(seconds / 60)
    lines = [", ".join(f"{count} {status}" for status, count in counts.items()) + f" in {minutes} min"]
    lines += [
        f"{outcome.step.name}: {outcome.problem.what.splitlines()[0]}" for outcome in failed if outcome.problem is not None
    ]
    return f"{what}: {how}", "\n".join(lines)


def send(outcomes: Sequence[Outcome], seconds: float) -> str:
    """Send a message if the run deserves one.

    Return why that failed, or "".
    """
    targets = addresses()
    if not targets or not deserves_message(outcomes, seconds):
        return ""
    if importlib.util.find_spec("apprise") is None:
        return "no message was sent: apprise is not installed  (pip install 'krnk[notify]')"
    import apprise  # noqa: PLC0415 - an extra

    service = apprise.Apprise()
    unknown = [_scheme(address) for address in targets if not service.add(address)]
    if unknown:
        return f"no message was sent: {', '.join(unknown)} is not an address of an apprise service"
    title, text = message(outcomes, seconds)
    kind = apprise.NotifyType.FAILURE if title.endswith("failed") else apprise.NotifyType.SUCCESS
    if not service.notify(body=text, title=title, notify_type=kind):
        return f"the message to {', '.join(map(_scheme, targets))} could not be sent"
    return ""


def _scheme(address: str) -> str:
    """Return an address without its possible password."""
    return f"{address.partition(':')[0]}://…"
