"""The last report of `segrelay backfill start`, which is asked of Redis once all is read."""

import orjson
import redis

from segrelay.ops.backfill import commands
from segrelay.ops.send import Deadline
from segrelay.ops.state.opened import Reads
from tests.interruptions import InterruptedRedis


def lose_the_connection():
    raise redis.ConnectionError("Connection closed by server.")


def test_a_connection_that_is_lost_before_the_report_is_waited_for(
    relay, call, redis_url, tmp_path, capsys
):
    rows = tmp_path / "rows.ndjson"
    rows.write_bytes(orjson.dumps({"email": "ann@example.com"}) + b"\n")
    call("backfill", "start", rows, "--audience", "vip", "--as-of", "now", "--job", "load")
    client = InterruptedRedis.from_url(redis_url, protocol=2)
    client.before = lose_the_connection

    for trip in (2, 4):  # the first one asks for the phase
        client.trips, client.at = 0, trip
        opened = Reads("backfill start", relay.settings, client)
        commands._run(opened, "load", Deadline(), wait=False).show(as_json=True)

        out, err = capsys.readouterr()
        assert orjson.loads(out)["accepted"] == 1
        assert "waiting: Redis can't be reached" in err
    client.close()
