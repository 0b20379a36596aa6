"""What follows from how a batch ended (reintegration.md §2.5). Pure.

    COMMIT      somebody executed it
    FOUND       it was sent before, and had been executed then
    UNKNOWN     somebody may have executed it: it stays frozen, under its store ids, until that is settled
    AGAIN       nobody executed it; it is thawed and sent again after a pause, under new store ids
    REFUSED     nobody executed it nor will; one record waits for a decision

EALREADY is believed only of a batch that was sent before: store ids are never used twice, so for any other
it is not about us. The answer to a log names the last store id that the server knows of us, and must name the
last one of the batch. The answer to a closed handle names none; but while the outcome of a batch is unknown
nothing else of the volume is sent, so the server knows no later id of this host: what it has done already is
this.
"""

from dataclasses import dataclass
from enum import Enum

from realmfs.realms.types import Reintegrated
from realmfs.vice.errors import Code

PATIENT = 5  # answers that may be passing trouble (EIO, EINVAL of a transfer) before they count as a refusal
SPACE_PAUSE = 60.0
_BUSY = frozenset({Code.EWOULDBLOCK, Code.ERETRY, Code.EALREADY, Code.EBUSY})
_NO_SPACE = {Code.EDQUOT: "room in the volume's quota", Code.ENOSPC: "room at the servers"}
_PASSING = frozenset({Code.EIO, Code.EINVAL, Code.ENXIO})
SERVERS = "servers"
PAUSED = "a person to go on"
TOKENS = "tokens"
LACK = "a server that is down and has what the others lack"
_RIGHTS = frozenset({Code.EPERM, Code.EACCES})


class Next(Enum):
    """What to do with a batch."""

    COMMIT = "commit"
    FOUND = "found"
    UNKNOWN = "unknown"
    AGAIN = "again"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do; for AGAIN why it waits, in words for people, and the least pause in seconds."""

    next: Next
    why: str = ""
    pause: float = 0.0


def judge(
    outcome: Reintegrated,
    *,
    was_sent: bool,
    last: int,
    by_handle: bool,
    as_nobody: bool,
    failures: int,
    behind: bool = False,
) -> Judgement:
    """Tell what follows.

    `last` is the greatest uniquifier of the batch, `failures` how often in a row there was trouble that may
    pass, `as_nobody` whether it was sent without a token, `behind` whether those who refuse lack an update
    that we know to be at a server which is down.
    """
    code = outcome.code
    if code is Code.SUCCESS:
        return Judgement(Next.COMMIT)
    if code is Code.EALREADY and was_sent and (by_handle or outcome.index >= last):
        return Judgement(Next.FOUND)
    if outcome.uncertain or (was_sent and code in _BUSY | {Code.ETIMEDOUT}):
        # One that is busy may be so with this very batch, sent before.
        return Judgement(Next.UNKNOWN)
    if behind:
        return Judgement(Next.UNKNOWN if was_sent else Next.AGAIN, LACK)
    return _not_executed(code, as_nobody, failures)


def _not_executed(code: Code, as_nobody: bool, failures: int) -> Judgement:
    if code is Code.ETIMEDOUT:
        return Judgement(Next.AGAIN, "servers")
    if code in _BUSY:
        return Judgement(Next.AGAIN, "servers that are busy")
    if code in _NO_SPACE:
        return Judgement(Next.AGAIN, _NO_SPACE[code], SPACE_PAUSE)
    if code in _RIGHTS and as_nobody:
        return Judgement(Next.AGAIN, TOKENS, SPACE_PAUSE)
    if code in _PASSING and failures < PATIENT:
        return Judgement(Next.AGAIN, f"servers that answer {code.name}")
    return Judgement(Next.REFUSED)
