import pytest
from redis import exceptions

from segrelay.worker.contract.redis.connection import redis_errors
from segrelay.worker.errors import RedisUnavailable


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
def test_what_operations_must_mend_is_said_in_our_words(error, message):
    with pytest.raises(RedisUnavailable, match=f"^Redis at h:1 .*{message}"), redis_errors("h:1"):
        raise error


def test_the_command_that_a_pipeline_puts_into_its_error_is_not_repeated():
    error = exceptions.ResponseError(
        "Command # 1 (SET who ada@example.com) of pipeline caused error: MISCONF disk"
    )

    with pytest.raises(RedisUnavailable) as found, redis_errors():
        raise error

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
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as found, redis_errors():
        raise error

    assert found.value is error
