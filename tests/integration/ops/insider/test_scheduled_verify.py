"""`segrelay verify` on a schedule: what Insider drops without a word is a problem of health."""

import pytest

from segrelay.ops.insider import PROFILE_PATH
from segrelay.ops.status.health import read_problems
from segrelay.ops.verify import scheduled_step
from segrelay.worker.adapters.redis.survey import RedisSchedule
from segrelay.worker.contract.celery import VERIFY_TASK, BackgroundJob
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from tests.integration.ops.relay import payload

pytestmark = pytest.mark.also_sealed(nightly=True)


@pytest.fixture
def verified(relay):
    """A small segrelay that verifies every day."""
    rate = 'rate = "25000/min"'
    relay.change((rate, f'{rate}\nverify_every = "1d"'))
    return relay


def step(relay):
    """Do a step, also about what was delivered just now."""
    return scheduled_step(relay.client, relay.settings, "insider", older_ms=0, again_seconds=0.0)


def problems(relay):
    found = read_problems(relay.client, relay.settings)
    return [one for one in found if one.name in {"insider_differs", "verify_fails"}]


def deliver(relay):
    relay.deliver(*[payload(f"p{n}@example.com") for n in range(5)])


def test_a_list_that_the_panel_does_not_define_is_a_problem_until_it_does(verified, sandbox):
    defined = sandbox.settings()["panel_attributes"]
    lacking = {k: v for k, v in defined.items() if k != DEFAULT_AUDIENCE_ATTRIBUTE}
    sandbox.settings(panel_attributes=lacking)
    deliver(verified)

    step(verified)

    [problem] = problems(verified)
    assert (problem.name, problem.subject) == ("insider_differs", "insider")
    assert "of 5 people who were read back, 5 memberships differ" in problem.message
    sandbox.settings(panel_attributes=defined)
    verified.deliver(*[payload(f"p{n}@example.com", minute=1) for n in range(5)])
    step(verified)
    assert problems(verified) == []


def test_the_next_run_is_due_a_day_later_where_it_is_configured(relay, verified):
    job = BackgroundJob(VERIFY_TASK, "insider")
    deliver(verified)

    assert job in RedisSchedule(verified.client, verified.settings).due()
    told = step(verified)

    assert (told.line, told.wait_seconds) == ("5 people read, 0 differ", 86_400)
    assert job not in RedisSchedule(verified.client, verified.settings).due()
    verified.client.flushdb()
    relay.change(('\nverify_every = "1d"', ""))
    deliver(relay)
    assert job not in RedisSchedule(relay.client, relay.settings).due()


def test_credentials_that_may_not_read_are_a_problem_after_three_steps(verified, sandbox):
    deliver(verified)
    sandbox.settings(failures=[{"status": 403, "path": PROFILE_PATH}])

    for told in range(3):
        assert len(problems(verified)) == (told > 2)
        step(verified)

    [problem] = problems(verified)
    assert (problem.name, problem.severity) == ("verify_fails", "attention")
