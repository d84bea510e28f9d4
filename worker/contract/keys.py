r"""Every key in Redis, and nothing else.

In a Cluster, a script or a transaction may touch one slot only. So the keys of a partition carry
the hash tag `{destination:partition}`, those of a job, a sync or a gate one of its own, and the few
that all have in common `{segrelay}`. A destination stands in them by its name.

Keys that hold people's data are marked with a star; all others hold digests only.
In a Redis that is protected, the data is sealed; see `contract.protection`.

| key | type | holds |
| --- | --- | --- |
| `{segrelay}:format` | string | the format's number, written once |
| `{segrelay}:partitions` | string | their number, written once |
| `{segrelay}:identity` | string | the identity field, as configured at first use |
| `{segrelay}:protection` | string | the secret that seals what has a star, sealed itself: |
| | | `contract.protection` |
| `{segrelay}:destinations` | hash | destination → its address, authorization, and fingerprint of |
| | | credentials, see `destinations_register.lua` |
| `{segrelay}:names` | hash | name → number, for the ledger's packed records |
| `{segrelay}:numbered` | hash | the last of these numbers, and the process of Redis that gave it |
| `{segrelay}:audiences` | hash | audience id → slug, learned from payloads |
| `{segrelay}:fingerprints` | hash | trigger → its newest `LoadedTrigger.edition` |
| `{segrelay}:paused` | hash | `KIND\|name`, see `contract.triggers` → JSON: by whom, why, since |
| `{segrelay}:streaks` | hash | trigger → `cause\|n`: deaths of one cause in a row |
| `{segrelay}:instance` | hash | `id`: a random name that Redis got at first use |
| `{instance:N}` | hash | the same for a master of a Cluster, with the lowest N of its slots |
| `{segrelay}:lost` | hash | `id`, and `@NODE`, that came back empty → `last seen\|noticed` (ms) |
| `{segrelay}:progress` | list | JSON of counts and times, newest first, for an hour |
| `{segrelay}:progress:lock` | hash | a sample of it was taken lately: see `lock_take.lua` |
| `{segrelay}:week` | list | one of these samples a quarter of an hour, for a week |
| `{segrelay}:week:lock` | hash | the same for it |
| `{segrelay}:receiver` | hash | what the receivers answered, see `contract.processes` |
| `{segrelay}:alerts` | hash | `open`: JSON of the open problems by name and subject; `failing`: |
| | | why messages are not taken; and the lock of who sends |
| `{segrelay}:alerts:lock` | hash | the problems were looked at lately: see `lock_take.lua` |
| `{segrelay}:requests` | stream | requests to the receiver: ids, counts, people (digests); capped |
| `{segrelay}:acts` | stream | JSON of what people did, see `contract.redis.acts`, capped |
| `{segrelay}:seen` | hash | `worker`, `flower`, `metrics` → when one was last seen (ms) |
| `{segrelay}:sweep:CONFIG` | hash | the lock of the sweep: see `lock_take.lua` |
| `{segrelay}:processes` | sorted set | JSON of a worker that runs, by when it was last seen (ms) |
| `{segrelay}:jobs` | set | names of the backfills |
| `{job:NAME}` | hash | a backfill: spec, phase, `moved` (ms), problem, `shard\|n`, and a lock |
| `{job:NAME}:forgotten` | string | the job was forgotten lately: no other one gets its name yet |
| `{watch:NAME}` | hash | a watch of a place: fields as of a sync |
| `{watch:NAME}:wakeup` | string | a step of the watch was woken and has not begun |
| `{sync:NAME}` | hash | a sync: `state` (JSON), `next` (ms), and a lock, see `_lock.lua` |
| `{sync:NAME}:wakeup` | string | a step of the sync was woken and has not begun |
| `{responses:d}` | hash | the export of responses; fields as of a sync |
| `{responses:d}:wakeup` | string | a step of it was woken and has not begun |
| `{verify:d}` | hash | the scheduled `verify` of a destination; fields as of a sync |
| `{verify:d}:wakeup` | string | a step of it was woken and has not begun |
| `{console}:epoch:DIGEST` | string | the cookies of a person have it; signing out deletes it |
| `{console}:tries:DIGEST` | string | tries to sign in from an address; see `sign_in_try.lua` |
| `{gate:ID}` | hash | the gate of one host and authorization; see `_gate.lua` |
| `{quarantine}:…` | | \* what could not be placed |
| `{d:p}s:lane\|trigger` | stream | \* the waiting deliveries |
| `{d:p}streams` | set | `lane\|trigger` of every stream that is not empty |
| `{d:p}counts` | hash | `[backfill.]kind\|trigger[\|reason]`, see `outcome_field`, and |
| | | `job\|name\|kind[\|reason]` → count; |
| | | and times and answers, see `contract.outcomes` |
| `{d:p}lease` | hash | token, until (ms), owner: `host:pid`, a space, its configuration; |
| | | and what stays: `floor`, ids up to there (ms) are not given again; and |
| | | `aged`, `aged_until`: up to this id (ms) there may be entries that |
| | | wait since that time (ms), see `_add.lua`; `sealed`, the id of the secret with which |
| | | the entries are sealed; and `address`, where the destination got another one |
| `{d:p}wakeup` | string | a drain was woken and has not begun |
| `{d:p}rendering` | string | what the holder is rendering: JSON |
| `{d:p}intents` | hash | intent id → a line for each delivery: position, header |
| `{d:p}open` | hash | intent id → end (ms) of the doubt |
| `{d:p}retry` | hash | trigger → JSON of a `Wait` of `core.backoff`, field by field |
| `{d:p}aside` | hash | `lane\|trigger\|id` → JSON of a `Backoff` of `core.backoff`; of those who |
| | | wait for an outage only, the first fields |
| `{d:p}holds` | hash | `lane\|trigger` → up to which id everything waits, until when, and the |
| | | trigger's edition, separated by spaces |
| `{d:p}dead_letters` | hash | \* dead letter id → the dead letter |
| `{d:p}dead_letter_times` | sorted set | dead letter id by time of death (ms) |
| `{d:p}causes` | hash | cause → JSON sample; `cause\|n` → count |
| `{d:p}reached` | sorted set | the smallest digests (hex) of people who were reached |
| `{d:p}who` | hash | \* digest → JSON: see `segrelay.ops.verify` |
| `{d:p}responses` | stream | \* outcomes for response streams: JSON of stream and record, capped |
| `{d:p}outcomes` | stream | \* rows about the ends of deliveries: see `contract.outcomes` |
| `{d:p}recorded` | hash | how many bytes of them are kept, and since when: `_record.lua` |
| `{d:p}responseslost` | string | how many of them went because there were too many |
| `{d:p}jobs` | hash | job → position; `job\|chunk` → numbers of the events added there; |
| | | `job\|epoch` → the earliest reader of the job that may still write |
| `{d:p}jobs:SOURCE` | hash | position and numbers for one source of a job, for 90 days |
| `{d:p}members:NAME` | hash | \* the members that a sync knows → their marks. Or somebody who |
| | | has entered since, and whose name it may need |
| `{d:p}synctokens` | hash | sync → token of the step that may change its members |
| `{d:p}l<digest>` | string | the ledger of one profile; one that may lapse begins with the end of |
| | | its retention, after which `lapse.lua` removes it |
| `{outcomes:NAME}` | hash | the cursor of an export of outcomes; fields as of a sync |
| `{retention}` | hash | the dropping of what was kept for long enough; fields as of a sync |
| `{retention}:wakeup` | string | a step of it was woken and has not begun |
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from segrelay.worker.contract.protection import PROTECTION as _SECRET
from segrelay.worker.contract.words import BACKFILL, LIVE

FORMAT: Final = "{segrelay}:format"
PARTITIONS: Final = "{segrelay}:partitions"
IDENTITY: Final = "{segrelay}:identity"
PROTECTION: Final = "{segrelay}:protection"
DESTINATIONS: Final = "{segrelay}:destinations"
NAMES: Final = "{segrelay}:names"
NUMBERED: Final = "{segrelay}:numbered"
AUDIENCES: Final = "{segrelay}:audiences"
PAUSED: Final = "{segrelay}:paused"
FINGERPRINTS: Final = "{segrelay}:fingerprints"
STREAKS: Final = "{segrelay}:streaks"
INSTANCE_ID: Final = "{segrelay}:instance"
LOST: Final = "{segrelay}:lost"
PROGRESS: Final = "{segrelay}:progress"
PROGRESS_LOCK: Final = "{segrelay}:progress:lock"
WEEK: Final = "{segrelay}:week"
WEEK_LOCK: Final = "{segrelay}:week:lock"
RECEIVER: Final = "{segrelay}:receiver"
ALERTS: Final = "{segrelay}:alerts"
ALERTS_LOCK: Final = "{segrelay}:alerts:lock"
REQUESTS: Final = "{segrelay}:requests"
ACTS: Final = "{segrelay}:acts"
SEEN: Final = "{segrelay}:seen"
SWEEP: Final = "{segrelay}:sweep"
PROCESSES: Final = "{segrelay}:processes"
JOBS: Final = "{segrelay}:jobs"
RETENTION: Final = "{retention}"

DIGEST_BYTES: Final = 10
"""The bytes of a digest: ten million profiles in a partition collide with a chance of 4e-11."""

REACHED_KEPT: Final = 1_000
"""The most people of a partition that `who` keeps: those with the smallest digests.

They are an even sample. `settle.lua` knows the number too. A person takes about 300 bytes.
"""


_OF_BACKFILL: Final = f"{BACKFILL}."


def gate(gate_id: str) -> str:
    """Return the key of a gate."""
    return f"{{gate:{gate_id}}}"


def outcome_cursor(name: str) -> str:
    """Return the key of the cursor of an export of outcomes."""
    return f"{{outcomes:{name}}}"


def node_instance_id(number: int) -> str:
    """Return a key for the instance id of a node of a Cluster."""
    return f"{{instance:{number}}}"


def job(name: str) -> str:
    """Return the key of a backfill's record."""
    return f"{{job:{name}}}"


def console_epoch(name: str) -> str:
    """Return the key of the epoch of a person's sessions at the console."""
    return f"{{console}}:epoch:{digest_of(name).hex()}"


def console_tries(address: str, name: str = "") -> str:
    """Return the key of the tries to sign in at the console, from an address and with a name."""
    told = hashlib.sha256(f"{address}|{name}".encode()).hexdigest()
    return f"{{console}}:tries:{told}"


def job_forgotten(name: str) -> str:
    """Return the key that is there for some time after a backfill was forgotten."""
    return f"{{job:{name}}}:forgotten"


def sync(name: str) -> str:
    """Return the key of a sync's state."""
    return f"{{sync:{name}}}"


def watch(name: str) -> str:
    """Return the key of the state of a watch."""
    return f"{{watch:{name}}}"


def responses(destination: str) -> str:
    """Return the key of the progress of a destination's response export."""
    return f"{{responses:{destination}}}"


def verify(destination: str) -> str:
    """Return the key of the scheduled `verify` of a destination."""
    return f"{{verify:{destination}}}"


def wakeup(key: str) -> str:
    """Return the key of the wake-up for the steps of a sync or a response export."""
    return f"{key}:wakeup"


def quarantine(part: str) -> str:
    """Return a key of the quarantine; all of it is in one slot."""
    return f"{{quarantine}}:{part}"


def identity_text(text: str, identity: str) -> str:
    """Return a value of the identity field as profile keys hold it: emails are in lower case."""
    text = text.strip()
    return text.lower() if "email" in identity else text


def digest_of(profile_key: str) -> bytes:
    """Return the digest under which a profile is known: 10 bytes of blake2b of its key."""
    key = _SECRET.digest_key
    return hashlib.blake2b(profile_key.encode(), digest_size=DIGEST_BYTES, key=key).digest()


def partition_of(profile_key: str, partitions: int) -> int:
    """Return the partition of a profile: `crc32(profile key) mod partitions`."""
    return zlib.crc32(profile_key.encode()) % partitions


def stream_name(lane: str, trigger: str) -> str:
    """Return the name of a stream within its partition."""
    return f"{lane}|{trigger}"


@lru_cache(maxsize=8_192)
def split_stream_name(name: str) -> tuple[str, str]:
    """Return lane and trigger of a stream's name."""
    lane, _, trigger = name.partition("|")
    return lane, trigger


def outcome_field(kind: str, stream: str, reason: str = "") -> str:
    """Return the field of `counts` for one kind of outcome of a stream's deliveries.

    It begins with `backfill.` unless the lane is `live`, so jobs have no fields of their own here.
    """
    lane, trigger = split_stream_name(stream)
    field = f"{kind}|{trigger}" + (f"|{reason}" if reason else "")
    return field if lane == LIVE else _OF_BACKFILL + field


def without_lane(field: str) -> tuple[str, str]:
    """Return the kind of lane that a field of `counts` names, and the field without it."""
    if field.startswith(_OF_BACKFILL):
        return BACKFILL, field.removeprefix(_OF_BACKFILL)
    return LIVE, field


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """The keys of one partition of one destination.

    Attributes:
        tag: The hash tag with which all keys of this partition begin.
    """

    destination: str
    number: int
    tag: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", f"{{{self.destination}:{self.number}}}")

    def stream(self, name: str) -> str:
        """Return the key of the stream `lane|trigger`."""
        return f"{self.tag}s:{name}"

    def members(self, sync: str) -> str:
        """Return the key of the members that a sync knows."""
        return f"{self.tag}members:{sync}"

    def ledger(self, digest: bytes) -> bytes:
        """Return the key of one profile's ledger; the digest stands in it as raw bytes."""
        return self.tag.encode() + b"l" + digest

    def ledgers(self, digests: Iterable[bytes]) -> list[bytes]:
        """Return the keys of the ledgers of several profiles."""
        begin = self.ledger(b"")
        return [begin + digest for digest in digests]

    def __getattr__(self, part: str) -> str:
        """Return the key of one of the parts that are named in this module's docstring."""
        if part not in _PARTS:
            raise AttributeError(part)
        return f"{self.tag}{part}"


_PARTS: Final = frozenset(
    {
        "streams", "counts", "lease", "wakeup", "rendering", "intents", "open", "retry", "aside",
        "holds", "dead_letters", "dead_letter_times", "causes", "reached", "who", "jobs",
        "responses", "responseslost", "outcomes", "recorded", "synctokens",
    }
)  # fmt: skip
