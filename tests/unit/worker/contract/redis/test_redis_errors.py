import pytest
from redis import exceptions

from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.errors import NotPermitted, RedisUnavailable


class Failing(Redis):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def run_command(self, *_words, **_options):
        raise self.error

    run_pipeline = run_command


def command(error, where):
    client = Failing(error)
    client.where = where
    client.get("a")


def pipeline(error, where):
    client = Failing(error)
    client.where = where
    client.pipeline().execute()


WAYS = [command, pipeline]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (exceptions.ConnectionError("Error 111 connecting to h:1. Refused."), "can't be reached"),
        (exceptions.TimeoutError("Timeout reading from socket"), "did not answer in time"),
        (exceptions.BusyLoadingError("Valkey is loading"), "is loading its data"),
        (exceptions.AuthenticationError("invalid password"), "correct redis.url"),
        (exceptions.ReadOnlyError("You can't write"), "read-only replica"),
        (exceptions.OutOfMemoryError("command not allowed"), "is full"),
        (exceptions.ClusterDownError("The cluster is down"), "cluster is down"),
        (exceptions.MasterDownError("Link with MASTER is down"), "lost its master"),
        (exceptions.NoPermissionError("no permissions"), "ACL"),
        (exceptions.ResponseError("MISCONF Errors writing to the AOF file"), "free some space"),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas"), "too few replicas"),
        (
            exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"),
            "no longer the master",
        ),
        (
            exceptions.ResponseError("WAITAOF cannot be used with replica instances. Please"),
            "no longer the master",
        ),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), "busy with a script"),
    ],
)
@pytest.mark.parametrize("ask", WAYS)
def test_what_operations_must_mend_is_said_in_our_words(ask, error, message):
    with pytest.raises(RedisUnavailable, match=f"^Redis at h:1 .*{message}"):
        ask(error, "h:1")


@pytest.mark.parametrize("ask", WAYS)
def test_the_command_that_a_pipeline_puts_into_its_error_is_not_repeated(ask):
    error = exceptions.ResponseError(
        "Command # 1 (SET who ada@example.com) of pipeline caused error: MISCONF disk"
    )

    with pytest.raises(RedisUnavailable) as found:
        ask(error, "")

    assert "ada" not in found.value.message
    assert found.value.__cause__ is None
    assert found.value.__suppress_context__


@pytest.mark.parametrize(
    "error",
    [
        exceptions.NoScriptError("No matching script"),
        exceptions.ResponseError("WRONGTYPE Operation against a key"),
        exceptions.WatchError("changed"),
        exceptions.ResponseError("WAITAOF cannot be used when numlocal is set"),
        ValueError("ours"),
    ],
)
@pytest.mark.parametrize("ask", WAYS)
def test_other_errors_pass_as_they_are(ask, error):
    with pytest.raises(type(error)) as found:
        ask(error, "")

    assert found.value is error


def test_a_right_that_is_missing_is_an_error_of_its_own():
    with pytest.raises(NotPermitted):
        command(exceptions.NoPermissionError("no permissions"), "")
