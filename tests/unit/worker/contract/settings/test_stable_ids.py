"""`stable` of a destination: where it can't work, the configuration is refused with a reason."""

import pytest

from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import ConfigurationInvalid

TEXT = """
[delivery]
identity = "{identity}"
[destinations.there]
api = "{api}"
base_url = "https://example.com"
rate = "100/min"
stable = "{stable}"
[triggers.enter]
destination = "there"
audiences = ["vip"]
on = "enter"
template = "t.jsonnet"
url = "/api/user/v1/upsert"
export_fields = {fields}
"""


@pytest.fixture
def load(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "t.jsonnet").write_text("{}")

    def loaded(*, identity="email", api="insider", stable="_uid", fields=()):
        text = TEXT.format(identity=identity, api=api, stable=stable, fields=list(fields))
        (tmp_path / "segrelay.toml").write_text(text)
        return load_settings(tmp_path / "segrelay.toml", environ={})

    return loaded


@pytest.mark.parametrize("identity", ["email", "phone_number", "uuid"])
def test_a_destination_names_the_field_that_stays(load, identity):
    assert load(identity=identity).destinations["there"].stable == "_uid"
    assert load(fields=["_uid", "city"]).destinations["there"].stable == "_uid"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"api": "http"}, "destinations.there.stable: is for destinations with api"),
        ({"stable": "email"}, "it changes together with the identity"),
        ({"identity": "id"}, "needs an identity that Insider can rename"),
        ({"fields": ["city"]}, "triggers.enter.export_fields: _uid, by which there knows people"),
    ],
)
def test_where_nobody_could_be_renamed_it_is_refused(load, changes, reason):
    with pytest.raises(ConfigurationInvalid) as caught:
        load(**changes)

    assert reason in str(caught.value)


def test_fields_that_others_export_do_not_matter_without_it(load):
    assert load(stable="", fields=["city"]).destinations["there"].stable == ""
