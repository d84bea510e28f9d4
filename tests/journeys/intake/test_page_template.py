"""The entrance template of Lytics' page, as it is printed: it reads the id of the audience."""

from pathlib import Path

from tests.journeys.play import SHORT, Rig, start_worker, status_of
from tests.waiting import until

PAGE = (Path(__file__).parents[2] / "conformance/templates/page_entrance.jsonnet").read_text()
VIP_ID = "0123456789abcdef0123456789abcdef"
SYNC = """
[lytics]
base_url = "SANDBOX"
token = "a-token-of-nobody"
[sync.vips]
audience = "vip"
every = "1h"
"""
TELLS = f'{SYNC}audience_id = "{VIP_ID}"\n'
MEMBERS = 150
ROWS = 40


def rig_of(tmp_path, more=SYNC):
    templates = {"insider/enter.jsonnet": PAGE}
    return Rig(tmp_path, delivery_lines=SHORT, more=more, templates=templates)


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
    """Return the ids of the audience in the entrance events that the sandbox has taken."""
    report = rig.sandbox.get("events")
    return {event["event_params"]["custom"]["id"] for one in report for event in one["events"]}


def all_delivered(rig, count):
    until(lambda: status_of(rig)["delivered"] == count, 60, else_show=rig.worker_log(0))
    assert status_of(rig)["dead"] == 0


def test_the_id_that_a_sync_names_reaches_its_members_and_the_rows_of_a_backfill(tmp_path):
    with rig_of(tmp_path, TELLS) as rig:
        fill_lytics(rig)
        start_worker(rig)

        all_delivered(rig, MEMBERS)
        backfill(rig, tmp_path)

        all_delivered(rig, MEMBERS + ROWS)
        assert "trigger.needs_id" not in rig.worker_log(0).read_text()
