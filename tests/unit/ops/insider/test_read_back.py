import pytest

from segrelay.ops.insider import lists_audience


@pytest.mark.parametrize(
    ("attributes", "is_listed"),
    [
        ({"c_audiences": ["gold", "vip"]}, True),
        ({"c_audiences": "vip"}, True),
        ({"c_audiences": ["gold"]}, False),
        ({"audiences": ["vip"]}, False),
    ],
)
def test_a_list_of_audiences_is_read_from_the_custom_attribute(attributes, is_listed):
    assert lists_audience(attributes, "vip", "audiences") is is_listed
