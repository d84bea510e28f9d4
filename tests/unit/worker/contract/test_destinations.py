"""The names and ids of destinations, as a process knows them."""

from segrelay.worker.contract.destinations import DestinationIds
from segrelay.worker.contract.keys import PartitionKeys

STORED = {b"eu": b"insider api.example.com|1a2b", b"insider": b"insider~2 ", b"crm": b"crm |"}


def test_a_process_that_has_asked_nobody_takes_a_name_for_the_id():
    ids = DestinationIds()

    assert (ids.of("insider"), ids.has("insider"), ids.names()) == ("insider", True, [])
    assert ids.partition("insider", 3).tag == "{insider:3}"


def test_a_name_has_the_id_that_redis_says():
    ids = DestinationIds.loads(STORED, {})

    assert {name: ids.of(name) for name in ids.names()} == {
        "crm": "crm",
        "eu": "insider",
        "insider": "insider~2",
    }
    assert ids.partition("eu", 3) == PartitionKeys("any name", 3, "insider")
    assert ids.partition_of("insider~2", 3).destination == "insider"


def test_the_ids_that_a_process_was_given_stay_whatever_is_renamed():
    ids = DestinationIds.loads({b"eu": b"insider ", b"crm": b"crm "}, {"insider": "insider"})

    assert ids.of("insider") == "insider"
    assert ids.names() == ["crm", "insider"]
    assert ids.name_of("insider") == "insider"


def test_under_a_name_without_an_id_there_is_nothing():
    ids = DestinationIds.loads(STORED, {})

    assert [ids.has(name) for name in ("new", "insider")] == [False, True]
    assert ids.of("new") == "new"
    renamed = DestinationIds.loads({b"eu": b"insider "}, {})
    assert renamed.partition("insider", 0).tag not in {
        renamed.partition("eu", 0).tag,
        "{insider~2:0}",
    }
