"""Reading from Insider behind a gateway with a private authority."""

import pytest

from segrelay.ops.insider import InsiderReader, check_live
from tests.configuration import insider, settings_in, table
from tests.journeys.endpoint import Endpoint
from tests.tls import server_context, write_certificates


def answer(came):
    if "columns" in came.path:
        return 200, {"data": [{"key": "email", "type": "string"}], "attributes": {"email": "x"}}
    return 200, {"attributes": {"email": "x@example.com"}}


@pytest.fixture
def settings_of(tmp_path):
    write_certificates(tmp_path)
    with Endpoint(answer, server_context(tmp_path)) as gateway:

        def load(**files):
            headers = {"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "secret-token"}
            return settings_in(
                tmp_path,
                table("authorizations.insider", headers=headers, **files),
                insider(base_url=gateway.url, authorization="insider"),
            )

        yield load


def test_the_authority_of_the_authorization_counts(settings_of):
    settings = settings_of(authority="authority.pem")

    with InsiderReader(settings, settings.destinations["insider"]) as reader:
        assert reader.profile({"identifiers": {"email": "x@example.com"}}, ["email"])
    assert list(check_live(settings)) == []
