"""Reading from Insider behind a gateway with a private authority."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from segrelay.ops.insider.live_check import check_live
from segrelay.ops.insider.reader import InsiderIdentities, InsiderReader, InsiderUnreadable
from segrelay.worker.contract.settings import load_settings
from tests.configuration import configuration, insider, table
from tests.journeys.certificates import server_context, write_certificates


class Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        known = b'{"data": [{"key": "email", "type": "string"}], "attributes": {"email": "x"}}'
        body = known if "columns" in self.path else b'{"attributes": {"email": "x@example.com"}}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def gateway(folder):
    server = HTTPServer(("127.0.0.1", 0), Gateway)
    server.socket = server_context(folder).wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.fixture
def settings_of(tmp_path):
    write_certificates(tmp_path)
    (tmp_path / "templates").mkdir()
    with gateway(tmp_path) as url:

        def load(**files):
            path = tmp_path / "segrelay.toml"
            headers = {"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "secret-token"}
            path.write_text(
                configuration(
                    table("authorizations.insider", headers=headers, **files),
                    insider(base_url=url, authorization="insider"),
                )
            )
            return load_settings(path)

        yield load


@pytest.mark.parametrize("kind", [InsiderReader, InsiderIdentities])
def test_the_authority_of_the_authorization_counts_for_every_reader(settings_of, kind):
    settings = settings_of(authority="authority.pem")

    with kind(settings, settings.destinations["insider"]) as reader:
        assert reader.profile({"identifiers": {"email": "x@example.com"}}, ["email"])
    assert check_live(settings) == []


def test_without_the_authority_the_cause_is_named(settings_of):
    settings = settings_of()

    with (
        InsiderReader(settings, settings.destinations["insider"]) as reader,
        pytest.raises(InsiderUnreadable, match="nobody trusted here has signed its certificate"),
    ):
        reader.columns("contacts")
