"""Reading from Insider behind a gateway with a private authority."""

from segrelay.ops.insider import InsiderReader, check_live
from tests.configuration import insider, settings_in, table
from tests.journeys.endpoint import Endpoint
from tests.tls import server_context, write_certificates


def answer(came):
    if "columns" in came.path:
        return 200, {"data": [{"key": "email", "type": "string"}], "attributes": {"email": "x"}}
    return 200, {"attributes": {"email": "x@example.com"}}


def test_the_authority_of_the_authorization_counts(tmp_path):
    write_certificates(tmp_path)
    headers = {"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "secret-token"}
    with Endpoint(answer, server_context(tmp_path)) as gateway:
        settings = settings_in(
            tmp_path,
            table("authorizations.insider", headers=headers, authority="authority.pem"),
            insider(base_url=gateway.url, authorization="insider"),
        )

        with InsiderReader(settings, settings.destinations["insider"]) as reader:
            assert reader.profile({"identifiers": {"email": "x@example.com"}}, ["email"])
        assert list(check_live(settings)) == []
