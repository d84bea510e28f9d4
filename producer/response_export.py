"""Response export: sends the outcomes of triggers with a `response_stream` to Lytics' collect API.

Drains leave records in a capped stream of their partition; here they go to Lytics in batches, at
least once, and are taken away when Lytics has them. While Lytics is down the oldest go, counted.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from segrelay.producer.lytics import LyticsApi
from segrelay.producer.steps import STEP_SECONDS, Step, StepState, StepStore, wait_seconds
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.protection import PROTECTION, RESPONSES
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import ConfigurationInvalid, LyticsRefused, LyticsUnavailable

LOG: Final = structlog.get_logger()
BODY_RECORDS: Final = 500
"""The number of records in a body: at 16 KB each at most, below the 10 MB that Lytics takes."""
_REQUEST_SECONDS: Final = 5.0
_REFUSED_SECONDS: Final = 60.0


@dataclass(slots=True)
class ExportState(StepState):
    """The progress of a destination's response export.

    Args:
        shipped: Records that Lytics has.
        rejected: Records that it did not want.
        failures: Steps in a row that came to nothing.
        problem: The problem that stopped the last of them.
    """

    shipped: int = 0
    rejected: int = 0
    failures: int = 0
    problem: str = ""


OpenApi = Callable[[], AbstractContextManager[LyticsApi]]


class ResponseExport:
    """Exports the responses of one destination, step by step.

    Args:
        open_api: Opens Lytics' API for one step.
    """

    def __init__(
        self,
        client: Redis,
        partitions: Sequence[PartitionKeys],
        open_api: OpenApi,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._open_api = open_api
        self._monotonic = monotonic
        self.store = StepStore(
            client,
            keys.responses(partitions[0].destination),
            f"the responses of '{partitions[0].destination}'",
            ExportState,
        )

    def step(self, *, is_over: Callable[[], bool] = lambda: False) -> Step:
        """Do one step of the export; records that Lytics does not take now stay for a later step.

        Raises:
            RedisUnavailable: Some that were sent may be sent again.
        """
        ends_at = self._monotonic() + STEP_SECONDS
        return self.store.step(
            lambda state, _: self._step(state, lambda: self._monotonic() > ends_at or is_over())
        )

    def _step(self, state: ExportState, is_over: Callable[[], bool]) -> Step:
        before = state.shipped
        wait = 0.0
        more = False
        try:
            with self._open_api() as api:
                more = self._send(api, state, is_over)
            state.failures, state.problem = 0, ""
        except (LyticsUnavailable, LyticsRefused, ConfigurationInvalid) as error:
            state.failures, state.problem = state.failures + 1, error.message
            wait = wait_seconds(state.failures)
            if not isinstance(error, LyticsUnavailable):
                wait = _REFUSED_SECONDS
            LOG.warning("responses.wait", failures=state.failures, reason=error.message)
        self.store.save(
            state,
            next_ms=self.store.now_ms() + round(1000 * wait) if wait else 0,
            ends=True,
        )
        told = f"{plural(state.shipped - before, 'response')} sent"
        return Step(f"{told}; {state.problem}" if wait else told, more=more, wait_seconds=wait)

    def _send(self, api: LyticsApi, state: ExportState, is_over: Callable[[], bool]) -> bool:
        """Send records until the step is over; return whether some may be left."""
        for partition in self._partitions:
            while found := self._read(partition):
                by_stream: defaultdict[str, dict[bytes, Any]] = defaultdict(dict)
                for entry_id, fields in found:
                    stream, record = orjson.loads(PROTECTION.unseal(fields[b"r"], RESPONSES))
                    by_stream[stream][entry_id] = record
                for stream, records in by_stream.items():
                    state.rejected += api.collect(stream, list(records.values()))
                    self._client.xdel(partition.responses, *records)
                    state.shipped += len(records)
                    self.store.save(state)
                if is_over():
                    return True
        return False

    def _read(self, partition: PartitionKeys) -> Any:
        return self._client.xrange(partition.responses, count=BODY_RECORDS)


def response_export_for(client: Redis, settings: Settings, destination: str) -> ResponseExport:
    """Return the export of a destination's responses to Lytics, ready to do steps.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """

    def opened() -> LyticsApi:
        if settings.lytics is None:
            raise ConfigurationInvalid("A trigger's response_stream needs the table [lytics].")
        # The step itself is tried again; within it nothing is waited for.
        return LyticsApi(settings.lytics, timeout_seconds=_REQUEST_SECONDS, tries=1)

    numbers = range(settings.redis.partitions)
    partitions = [PartitionKeys(destination, number) for number in numbers]
    return ResponseExport(client, partitions, opened)
