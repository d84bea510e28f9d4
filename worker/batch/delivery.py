"""A delivery on its way through a batch: a contender, a parcel, a part of a request.

A route: all that a drain needs to know of one trigger, put together once per process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

from segrelay.jsonnet.rendered import Engine, Template
from segrelay.worker.batch.partition import Delivery, Intent
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.settings.authorizations import Certificate
from segrelay.worker.core.gate import Slot
from segrelay.worker.core.ledger import Fact, with_delivered, with_tried, with_whole_list
from segrelay.worker.destinations.api import Answer, Api, Shaped, ShapingRules
from segrelay.worker.destinations.sending import NoAnswer


@dataclass(frozen=True, slots=True)
class Route:
    """One trigger, ready to deliver.

    Args:
        api_name: As configured: `insider` or `http`.
        template: None where it is broken; then the trigger is stopped.
        headers: Of the authorization, revealed; `{token}` stands for a token.
        params: Of the authorization, revealed; `{token}` stands for a token.
        settings: The template's `jobConfGet`.
        engine: `jsonnet`: never the compiled form of the template.
        stopped: Why it can't deliver until its template is mended, or a secret is set; "" = it can.
        token_of: The authorization whose token requests carry; "" = none.
        envelope: Makes a whole body of its array of results; None = no template does.
        tls: The files with which connections are secured.
    """

    trigger: str
    api: Api
    api_name: str
    template: Template | None
    rules: ShapingRules
    headers: Mapping[str, str] = field(repr=False)
    params: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, Any]
    on_ambiguous: Literal["resend", "dead_letter"]
    engine: Engine = "auto"
    stopped: str = ""
    token_of: str = ""
    tls: Certificate | None = None
    envelope: Template | None = None


NOTHING: Final = Shaped((), {})
"""The placeholder for the body that is sent of a parcel, until the parcel is packed."""


class Contender(NamedTuple):
    """A decoded delivery, which contends with the other events of its profile and audience.

    Attributes:
        fact: The event as the ledger judges it.
        profile: JSON text.
        losers: Older deliveries of its batch that it beat; they are settled together with it.
    """

    delivery: Delivery
    fact: Fact
    profile: bytes
    superseded: tuple[Contender, ...] = ()


@dataclass(slots=True, eq=False)
class Parcel:
    """A delivery that is ready to be packed into a request.

    As a frozen class it would take three times as long to make.

    Args:
        body: The rendered text, which a dead letter shows.
        names: The profile's digest, and the identifiers by which the destination knows it.
        sent: The body as the ledger corrected it for the request that carries the parcel.
    """

    delivery: Delivery
    fact: Fact
    route: Route
    shaped: Shaped
    body: bytes
    superseded: tuple[Contender, ...]
    names: frozenset[bytes | str]
    sent: Shaped = NOTHING

    @property
    def digest(self) -> bytes:
        """Return the digest of the parcel's profile."""
        return self.delivery.header.digest

    def correct(self, sent: Shaped) -> None:
        """Remember the parcel's body as it was corrected right before its request is packed."""
        self.sent = sent

    def delivered_in(self, record: Record) -> Record:
        """Return the profile's record after the parcel's delivery."""
        api, header = self.route.api, self.delivery.header
        data_sent = api.tells_data(self.shaped, header, self.route.rules)
        return self._after_body(with_delivered(record, self.fact, data_sent=data_sent))

    def tried_in(self, record: Record) -> Record:
        """Return the profile's record after a request that got no sure answer."""
        return self._after_body(with_tried(record, self.fact))

    def _after_body(self, record: Record) -> Record:
        """Return the record after the body was sent, which may replace the whole audience list."""
        if self.route.api.overwrites(self.shaped):
            return with_whole_list(record, self.fact.time_us)
        return record


class Packed(NamedTuple):
    """User objects of one person in a request, as JSON.

    Attributes:
        members: The parcel that they carry, or several parcels that share one user object.
    """

    members: tuple[Parcel, ...]
    users: tuple[bytes, ...]

    @property
    def is_shared(self) -> bool:
        """Say whether the user object carries several deliveries."""
        return len(self.members) > 1


@dataclass(frozen=True, eq=False)
class Request:
    """One HTTP request: users of one destination, of different profiles.

    Args:
        triggers: Whose deliveries it carries.
        is_part: It is a part of a body that was refused.
    """

    packed: tuple[Packed, ...]
    url: str
    body: bytes
    users: int
    triggers: tuple[str, ...]
    is_part: bool = False

    @cached_property
    def parcels(self) -> tuple[Parcel, ...]:
        """The parcels that the request carries, cached: each of a thousand may ask for all."""
        return tuple(parcel for packed in self.packed for parcel in packed.members)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was made.

    Args:
        begun_seconds: When it was begun, by the drain's clock.
        elapsed_seconds: Until its answer, or until there could be none.
    """

    request: Request
    intent: Intent
    answer: Answer | NoAnswer
    slot: Slot
    begun_seconds: float
    elapsed_seconds: float = 0.0
