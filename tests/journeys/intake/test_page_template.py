"""The entrance template of Lytics' page, as it is printed: it reads the id of the audience."""

from pathlib import Path

from segrelay.sandbox.lytics.account import audience_id
from tests.journeys.play import SHORT, Rig, start_worker, status_of
from tests.waiting import until

PAGE = (Path(__file__).parents[2] / "conformance/templates/page_entrance.jsonnet").read_text()
VIP_ID = audience_id("vip")
SYNC = """
[lytics]
base_url = "SANDBOX"
token = "a-token-of-nobody"
[sync.vips]
audience = "vip"
every = "1h"
"""
MEMBERS = 150
ROWS = 40


def rig_of(tmp_path, more=SYNC):
    templates = {"insider/enter.jsonnet": PAGE}
    audiences = ["vip"]
    return Rig(tmp_path, delivery_lines=SHORT, more=more, templates=templates, audiences=audiences)


def fill_lytics(rig):
    rig.sandbox.post(
        "lytics/profiles",
        [
            {"_uid": f"u{n:05}", "email": f"p{n}@example.com", "segments": ["vip", "all"]}
            for n in range(MEMBERS)
        ],
    )


def backfill(rig, tmp_path, *options):
    """Start a backfill of a CSV that lists people whom no sync knows."""
    path = tmp_path / "rows.csv"
    path.write_text("email\n" + "".join(f"c{n}@example.com\n" for n in range(ROWS)))
    as_of = ("--audience", "vip", "--as-of", "2026-11-20T06:00:00Z")
    answer = rig.command("backfill", "start", str(path), *as_of, *options, "--wait", "--json")
    assert answer.returncode == 0, answer.stderr.decode()


def ids_at_insider(rig):
    """Return the ids of the audience in the newest events that the sandbox has taken."""
    events = [one["event"] for one in rig.sandbox.get("events")["last"]]
    return {event["event_params"]["custom"]["id"] for event in events}


def all_delivered(rig, count):
    until(lambda: status_of(rig)["delivered"] == count, 60, else_show=rig.worker_log(0))
    assert status_of(rig)["dead"] == 0
    assert ids_at_insider(rig) == {VIP_ID}


def test_a_known_id_reaches_the_members_of_a_sync_and_the_rows_of_a_backfill(tmp_path):
    with rig_of(tmp_path, f'{SYNC}audience_id = "{VIP_ID}"\n') as rig:
        fill_lytics(rig)
        start_worker(rig)

        all_delivered(rig, MEMBERS)
        backfill(rig, tmp_path)

        all_delivered(rig, MEMBERS + ROWS)
        assert "trigger.needs_id" not in rig.worker_log(0).read_text()


def test_where_no_id_is_known_the_worker_and_the_check_say_so_before_anything_dies(tmp_path):
    with rig_of(tmp_path) as rig:
        start_worker(rig)
        log = rig.worker_log(0).read_text()
        told = rig.command("config", "check")

        assert status_of(rig)["dead"] == 0
        for text in (log, told.stderr.decode()):
            assert "insider/enter.jsonnet:53: no such field: id." in text
            assert "set audience_id in [sync.vips]" in text
        assert "trigger.needs_id" in log
        assert told.returncode == 0
