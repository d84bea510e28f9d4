"""The receiver: what is wrong with it is told until it is over."""

from segrelay.ops.demo.rig import kill_group
from segrelay.worker.contract import keys
from tests.journeys.judging import WELL_SECONDS, entrances, glimpsed, ill_of, well
from tests.journeys.play import SHORT, Rig, start_worker
from tests.waiting import until


def test_requests_that_are_too_large_are_told_until_the_limit_is_raised(
    tmp_path, channel, receiver
):
    limited = receiver.table(max_bytes=65536)
    with Rig(tmp_path, delivery_lines=SHORT, more=limited + channel.table()) as rig:
        start_worker(rig)
        process = receiver.start(rig)
        assert receiver.post(entrances(1)) == 200
        well(rig)

        assert receiver.post(entrances(1_000)) == 413
        assert "max_bytes" in ill_of(rig, "receiver_too_large")["command"]
        channel.announced("receiver_too_large", "problem")
        # A sender that is killed before it noted that would leave the message to be sent again.
        until(lambda: b'told_ms":0' not in rig.client.hget(keys.ALERTS, "open"))

        kill_group(process)
        source = rig.settings.source
        source.write_text(source.read_text().replace("max_bytes = 65536", "max_bytes = 2000000"))
        receiver.start(rig)
        assert receiver.post(entrances(1_000)) == 200
        well_but_for(rig, {"worker_configuration"})
        channel.announced("receiver_too_large", "problem", "problem_over")


def well_but_for(rig, names):
    """Wait until nothing else is wrong, worth a look or not."""
    until(lambda: glimpsed(rig, attention=True) <= names, WELL_SECONDS)
