"""`segrelay audience` as a person calls it."""

import orjson
import pytest

from segrelay.worker.errors import UsageWrong
from tests.commands import called
from tests.unit.producer.payload_samples import ENTER, VIP, wrapped


@pytest.fixture
def settings(configure):
    return configure()


@pytest.fixture
def publish(publisher_of, settings):
    """Publish one entrance, by a publisher that has learned nothing yet."""

    def run(**entry):
        payload = wrapped(segment_events=[{**ENTER, **entry}])
        return publisher_of(settings).publish([orjson.dumps(payload)])

    return run


@pytest.fixture
def run(settings, monkeypatch):
    monkeypatch.setenv("SEGRELAY_CONFIG", str(settings.source))
    return called


def test_a_conflict_is_over_when_a_person_says_which_slug_holds(run, publish):
    publish(slug="was")
    (problem,) = publish(slug="vip").problems

    told = run("audience", "set", VIP, "vip")
    retried = run("quarantine", "replay", "--reason", "audience_conflict", "--json")

    assert "`segrelay audience set`" in problem.message
    assert "no longer for 'was'" in told.stdout
    assert "segrelay quarantine replay --reason audience_conflict" in told.stderr
    assert orjson.loads(retried.stdout)["accepted"] == 1
    assert publish(slug="was").problems[0].reason == "audience_conflict"


def test_an_id_that_no_payload_has_told_can_be_told_by_a_person(run, publish):
    (problem,) = publish(slug=None).problems

    told = run("audience", "set", VIP, " vip ", "--json")
    retried = run("quarantine", "replay", "--all", "--json")

    assert problem.reason == "unknown_audience"
    assert orjson.loads(told.stdout) == {"id": VIP, "slug": "vip", "was": ""}
    assert orjson.loads(retried.stdout)["placed"] == 1


@pytest.mark.parametrize(("audience_id", "slug"), [("", "vip"), (VIP, " ")])
def test_an_empty_word_is_refused(run, audience_id, slug):
    with pytest.raises(UsageWrong, match="is empty"):
        run("audience", "set", audience_id, slug)
