"""Reading from Insider behind a gateway with a private authority."""

import pytest

from segrelay.ops.insider import InsiderReader, check_live
from segrelay.worker.contract.settings import load_settings
from tests.configuration import configuration, insider, table
from tests.journeys.certificates import server_context, write_certificates
from tests.journeys.endpoint import Endpoint


def answer(came):
    if "columns" in came.path:
        return 200, {"data": [{"key": "email", "type": "string"}], "attributes": {"email": "x"}}
    return 200, {"attributes": {"email": "x@example.com"}}


@pytest.fixture
def settings_of(tmp_path):
    write_certificates(tmp_path)
    (tmp_path / "templates").mkdir()
    with Endpoint(answer, server_context(tmp_path)) as gateway:

        def load(**files):
            path = tmp_path / "segrelay.toml"
            headers = {"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "secret-token"}
            path.write_text(
                configuration(
                    table("authorizations.insider", headers=headers, **files),
                    insider(base_url=gateway.url, authorization="insider"),
                )
            )
            return load_settings(path)

        yield load


def test_the_authority_of_the_authorization_counts(settings_of):
    settings = settings_of(authority="authority.pem")

    with InsiderReader(settings, settings.destinations["insider"]) as reader:
        assert reader.profile({"identifiers": {"email": "x@example.com"}}, ["email"])
    assert list(check_live(settings)) == []
