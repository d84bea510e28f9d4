"""How a worker starts, and how it says that it can't; in both forms of the command."""

import os
import subprocess
import sys

import pytest

from segrelay.ops.run.up import own_command
from segrelay.worker.contract import keys
from tests import warm

CELERY = [sys.executable, "-m", "celery", "-A", "segrelay.worker.app", "worker"]


@pytest.fixture(params=["segrelay", "celery"])
def start(request, tmp_path):
    """Run a worker that should not come far; returns its exit code and what it said."""

    def run(configuration, *options, **environment):
        variables = {**os.environ, "SEGRELAY_CONFIG": str(configuration), **environment}
        if request.param == "segrelay":
            done = warm.run(own_command("worker", *options), env=variables)
        else:
            done = subprocess.run(
                [*CELERY, *options],
                cwd=tmp_path,
                env=variables,
                capture_output=True,
                timeout=120,
                check=False,
            )
        return done.returncode, (done.stdout + done.stderr).decode()

    return run


def test_a_wrong_configuration_is_told_and_ends_with_2(start, tmp_path):
    (tmp_path / "segrelay.toml").write_text("[redis]\npartitions = 0\n")

    code, said = start(tmp_path / "segrelay.toml")

    assert (code, "redis.partitions" in said, "Traceback" in said) == (2, True, False)


def test_another_partition_count_than_the_one_in_use_is_refused(start, configuration, broker):
    broker.client.set(keys.PARTITIONS, "4")

    code, said = start(configuration)

    assert "Redis is in use with 4 partitions" in said
    assert (code, "Traceback" in said) == (2, False)


@pytest.mark.parametrize(
    ("start", "option", "says"),
    [
        ("segrelay", "--no-such-option", "--no-such-option"),
        ("celery", "--no-such-option", "--no-such-option"),
        ("celery", "--pool=threads", "use --pool prefork"),
        ("segrelay", "--queues=foo", "The queues are segrelay.live and segrelay.backfill."),
    ],
    indirect=["start"],
)
def test_a_wrong_option_is_told_and_is_no_bug(start, configuration, option, says):
    code, said = start(configuration, option)

    assert says in said
    assert (code, "Traceback" in said, "should not have happened" in said) == (2, False, False)


@pytest.mark.parametrize("start", ["segrelay"], indirect=True)
def test_a_redis_that_is_not_there_is_waited_for_and_told(start, configuration):
    code, said = start(configuration, SEGRELAY_REDIS_URL="redis://127.0.0.1:1/0")

    assert "Redis at 127.0.0.1:1 can't be reached" in said
    assert (code, "Traceback" in said) == (1, False)
