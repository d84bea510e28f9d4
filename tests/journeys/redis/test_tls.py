"""Redis by TLS only, with real certificates, as the ACL user that is shipped and nobody else."""

from contextlib import ExitStack
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from celery import Celery

from segrelay.ops.embedded import ensure_running, free_port, stop
from segrelay.worker.contract.celery import broker_options
from segrelay.worker.contract.redis.connection import connect, wait_ready
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import RedisUnavailable
from tests.journeys.play import SHORT, Rig, invent, lines, nothing_is_wrong, send, start_worker
from tests.nightly import amount
from tests.redis_user import PASSWORD, make_user
from tests.tls import Certificates, TlsRelay
from tests.topologies import LocalCluster
from tests.waiting import until

HERE = "IP:127.0.0.1"
MORE = """
[producer.webhook]
listen = "127.0.0.1:{port}"
secret = "a secret"
[flower]
listen = "127.0.0.1:{flower}"
user = "ops"
password = "a password"
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def client_certificate(certificates):
    return certificates.signed("client", "DNS:client.example.com")


@pytest.fixture
def server(tmp_path):
    """A plain Redis, with the shipped user only."""
    started = ensure_running(tmp_path / "redis")
    with connect(started.url) as client:
        make_user(client)
        yield client, urlsplit(started.url).port
    stop(tmp_path / "redis")


def address(relay, authority, certificate=None):
    options = {"ssl_ca_certs": authority}
    if certificate:
        options |= {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]}
    login = f"segrelay:{PASSWORD}@127.0.0.1:{relay.listens_at}"
    return f"rediss://{login}/0?{urlencode(options)}"


def test_everything_works_by_tls_with_the_shipped_rights(
    tmp_path, server, certificates, client_certificate
):
    admin, port = server
    mine = certificates.signed("server", HERE)
    receiver, flower = free_port(), free_port()
    happened, sent = invent(300, 60)
    (tmp_path / "rig").mkdir()
    with (
        TlsRelay(port, mine, certificates.authority) as relay,
        Rig(
            tmp_path / "rig",
            redis_url=address(relay, certificates.authority, client_certificate),
            delivery_lines=SHORT,
            more=MORE.format(port=receiver, flower=flower),
        ) as rig,
    ):
        start_worker(rig)
        rig.start_beside("serve")
        rig.start_beside("flower")
        send(rig, lines(sent[:200]))
        until(lambda: posted(receiver, lines(sent[200:])), 60)
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)
        until(lambda: drained(flower), 60)
        check = rig.command("status", "--check")
        assert (check.returncode, check.stdout) == (0, b"All is well.\n"), check.stdout
        assert rig.command("redis", "status").returncode == 0
        rig.stop_workers()
        assert relay.taken > 0
        assert denied(admin) == []


def posted(port, content):
    try:
        headers = {"X-Segrelay-Secret": "a secret"}
        url = f"http://127.0.0.1:{port}/v1/lytics"
        return httpx.post(url, content=content, headers=headers).is_success
    except httpx.TransportError:
        return False


def drained(port):
    try:
        found = httpx.get(f"http://127.0.0.1:{port}/api/tasks", auth=("ops", "a password"))
    except httpx.TransportError:
        return False
    return found.is_success and found.json()


def denied(admin):
    """Return what Redis did not allow the user."""
    return [(one["reason"], one["context"], one["object"]) for one in admin.acl_log()]


@pytest.mark.nightly
def test_a_cluster_works_by_tls_with_the_shipped_rights_and_one_more(
    tmp_path, redis_url, certificates, client_certificate
):
    mine = certificates.signed("server", HERE)
    happened, sent = invent(300, 60)
    (tmp_path / "rig").mkdir()
    with ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(tmp_path / "cluster", replicas=False))
        admins = [admin_of(stack, cluster, port) for port in cluster.nodes]
        for admin in admins:
            make_user(admin, "+cluster|slots")
        relays = {
            port: stack.enter_context(TlsRelay(port, mine, certificates.authority))
            for port in cluster.nodes
        }
        for admin, relay in zip(admins, relays.values(), strict=True):
            admin.config_set("cluster-announce-port", relay.listens_at)
        told = {relay.listens_at for relay in relays.values()}
        until(lambda: all(ports_of(admin) == told for admin in admins), 30)
        rig = stack.enter_context(
            Rig(
                tmp_path / "rig",
                redis_url=cluster_address(relays, certificates.authority, client_certificate),
                redis_lines=f'broker_url = "{redis_url}"',
                delivery_lines=SHORT,
            )
        )
        start_worker(rig)
        send(rig, lines(sent))
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)
        assert rig.command("audience", "list").returncode == 0
        assert rig.command("redis", "status").returncode == 0
        rig.stop_workers()
        assert all(relay.taken for relay in relays.values())
        assert [denied(admin) for admin in admins] == [[]] * len(admins)


def admin_of(stack, cluster, port):
    url = f"redis://:{cluster.password}@127.0.0.1:{port}"
    return stack.enter_context(connect(url))


def ports_of(admin):
    """Return the ports at which the nodes say that they are reached."""
    return {node[1] for _, _, node, *_ in admin.execute_command("CLUSTER SLOTS")}


def cluster_address(relays, authority, certificate):
    options = {"ssl_ca_certs": authority}
    options |= {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]}
    hosts = ",".join(f"127.0.0.1:{relay.listens_at}" for relay in relays.values())
    return f"rediss+cluster://segrelay:{PASSWORD}@{hosts}?{urlencode(options)}"


@pytest.mark.parametrize("wrong", amount(["authority"], nightly=["authority", "host", "client"]))
def test_a_wrong_certificate_is_refused_by_us_and_by_celery(
    tmp_path, server, certificates, client_certificate, wrong
):
    _, port = server
    mine = certificates.signed("server", "DNS:other.example.com" if wrong == "host" else HERE)
    trusted = certificates.authority
    if wrong == "authority":
        trusted = Certificates(tmp_path / "others", "other").authority
    shown = None if wrong == "client" else client_certificate
    with TlsRelay(port, mine, certificates.authority) as relay:
        url = address(relay, trusted, shown)
        (tmp_path / "templates").mkdir()
        (tmp_path / "segrelay.toml").write_text(f'[redis]\nurl = "{url}"\n')
        settings = load_settings(tmp_path / "segrelay.toml", environ={})
        app = Celery("test")
        app.conf.update(broker_options(settings))

        with pytest.raises(RedisUnavailable, match=r"can't be reached|cut") as found:
            wait_ready(url, 0.0)
        assert PASSWORD not in found.value.message
        with pytest.raises(app.connection().connection_errors), app.connection() as connection:
            connection.connect()
