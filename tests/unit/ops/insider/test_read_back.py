import pytest

from segrelay.ops.insider import ReadBack, lists_audience
from segrelay.worker.destinations.api import Shaped

SENT = Shaped(
    users=(
        {
            "identifiers": {"email": "ann@example.com"},
            "attributes": {
                "age": 41,
                "name": "Ann",
                "custom": {"audiences": ["vip"], "lytics_score": 7},
            },
        },
    ),
    root={},
)


def test_each_attribute_that_was_sent_is_compared_under_the_name_insider_reads_it_by():
    held = ReadBack({"age": "41", "c_audiences": ["gold", "vip"], "c_lytics_score": 8})

    assert held.verdicts(SENT) == {
        "age": "as sent",
        "c_audiences": "as sent",
        "c_lytics_score": "differs",
        "name": "not there",
    }


def test_nothing_is_there_of_a_person_whom_insider_does_not_know():
    assert set(ReadBack(None).verdicts(SENT).values()) == {"not there"}


@pytest.mark.parametrize(
    ("attributes", "is_listed"),
    [
        ({"c_audiences": ["gold", "vip"]}, True),
        ({"c_audiences": "vip"}, True),
        ({"c_audiences": ["gold"]}, False),
        ({"audiences": ["vip"]}, False),
        ({}, False),
    ],
)
def test_a_list_of_audiences_is_read_from_the_custom_attribute(attributes, is_listed):
    assert lists_audience(attributes, "vip", "audiences") is is_listed
