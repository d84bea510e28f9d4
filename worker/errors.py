"""Every error that we raise on purpose, sorted by who must act.

SegrelayError
├── PayloadRefused              an event that can't be placed; the others still are
├── WeMustAct                   exit code 2: a template or the configuration is wrong
│   ├── ConfigurationInvalid    one or more problems, each with its place and a hint
│   ├── RedisMismatch           Redis was first used with something else that must not change
│   ├── UsageWrong              a command was called with something it can't do
│   └── LyticsRefused           Lytics refuses the token, or knows nothing of what is asked for
├── OperationsMustAct           exit code 1: something outside is not as it must be
│   ├── RedisUnavailable        not there, loading, read-only, full
│   │   ├── NotPermitted        its user may not do what is needed
│   │   ├── NotReplicated       written, but too few replicas have confirmed it
│   │   └── SealedAnew          Redis has another secret than when the process began
│   ├── LeaseLost               somebody else holds the partition now
│   ├── DrainEndedBadly         deliveries died, or the destination refused or failed
│   ├── FormatUnknown           another version wrote it, and only that one can read it
│   ├── PortTaken               a port we should listen on is in use
│   ├── JobHeld                 this process may not read this backfill (any more)
│   ├── SourceChanged           a file was written to while it was read
│   ├── SourceDamaged           a file is cut off, or can't be unpacked to its end
│   └── SourceUnavailable       a bucket or a web server does not answer
│       └── LyticsUnavailable   Lytics does not answer, or not in a form that we know
│           └── ScanExpired     a scan can't go on where it stood and has to begin anew
└── Bug                         nobody can act yet: a promise of our own is broken

A template that does not parse or load raises `TemplateBroken` of `segrelay.jsonnet`, which knows
nothing of this tree: we must act, too, and a command ends with exit code 2.

A message says what is wrong, where, and what to do. No message holds a profile field or a secret.
"""

from __future__ import annotations


class SegrelayError(Exception):
    """Base of all errors raised on purpose. Survives pickling: all arguments are positional.

    Args:
        message: The problem, where it is, and what to do; one paragraph, no trailing newline.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class PayloadRefused(SegrelayError):  # noqa: N818 - named for what became of the payload
    """An event that can't be placed.

    Args:
        reason: The machine-readable reason, e.g. `bad_time`; see `segrelay.worker.contract.words`.
        message: The same for a person.
    """

    def __init__(self, reason: str, message: str) -> None:
        SegrelayError.__init__(self, message)
        self.args = (reason, message)
        self.reason = reason


class WeMustAct(SegrelayError):  # noqa: N818
    """A template, the configuration or the way of calling is wrong."""

    exit_code = 2


class ConfigurationInvalid(WeMustAct):
    """The configuration has problems; the message lists all of them, a line each."""


class RedisMismatch(WeMustAct):
    """Redis holds another format, count, identity or protection than the configuration says."""


class UsageWrong(WeMustAct):
    """A command was called with something that it can't do."""


class LyticsRefused(WeMustAct):
    """Lytics refuses the token, or what is asked for does not exist there.

    Args:
        status: The status of its answer.
    """

    def __init__(self, message: str, status: int) -> None:
        SegrelayError.__init__(self, message)
        self.args = (message, status)
        self.status = status


class OperationsMustAct(SegrelayError):  # noqa: N818
    """Something outside of segrelay, such as Redis, is not as it must be."""


class RedisUnavailable(OperationsMustAct):
    """Redis is not there, is loading, is read-only or is full.

    Whatever asks Redis may raise it; only docstrings that have more to say of it name it.

    Args:
        message: See `SegrelayError`.
        waited_seconds: The time that the command had waited for Redis when it gave up.
    """

    def __init__(self, message: str, waited_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.waited_seconds = waited_seconds


class NotPermitted(RedisUnavailable):
    """Redis does not let its user do what is needed."""


class NotReplicated(RedisUnavailable):
    """Redis has written something, but too few of its replicas have confirmed it."""


class SealedAnew(RedisUnavailable):
    """Redis seals people's data with another secret than the caller, or came back empty."""

    def __init__(
        self,
        message: str = (
            "Redis came back empty, or with another protection of people's data, since this began."
            " Nothing was done; give the command again."
        ),
    ) -> None:
        super().__init__(message)


class LeaseLost(OperationsMustAct):
    """Somebody else holds the partition now; nothing of ours may be written any more."""


class DrainEndedBadly(OperationsMustAct):
    """A drain did all that it could, and somebody should look at what came of it."""

    def __repr__(self) -> str:
        """Return the message: Flower shows it as it is."""
        return self.message


class FormatUnknown(OperationsMustAct):
    """Something in Redis has a format that this version does not know; a newer one wrote it.

    So has what was sealed with the secret of another Redis.
    """


class PortTaken(OperationsMustAct):
    """A port that we should listen on is in use."""


class JobHeld(OperationsMustAct):
    """Another process reads this backfill now, or it was paused or aborted meanwhile."""


class SourceChanged(OperationsMustAct):
    """A file was written to while it was read; what it says as a whole is not known."""


class SourceDamaged(OperationsMustAct):
    """A file is cut off or can't be unpacked to its end; nobody knows what else it would say."""


class SourceUnavailable(OperationsMustAct):
    """A bucket or a web server does not answer; it is tried again later."""


class LyticsUnavailable(SourceUnavailable):
    """Lytics does not answer, or not in a form that we know; it is tried again later."""


class ScanExpired(LyticsUnavailable):
    """A scan can't go on where it stood; it has to begin anew."""


class Bug(SegrelayError):  # noqa: N818
    """A promise of our own is broken; nobody can act yet."""
