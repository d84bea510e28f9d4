"""Redis by TLS only, with real certificates, as the ACL user that is shipped and nobody else."""

from contextlib import ExitStack
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from celery import Celery
from cryptography import x509

from segrelay.ops.embedded import ensure_running, stop
from segrelay.worker.contract.celery import broker_options
from segrelay.worker.contract.redis.connection import connect, wait_ready
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import RedisUnavailable
from tests.configuration import table
from tests.journeys.judging import well
from tests.journeys.play import SHORT, Rig, invent, lines, nothing_is_wrong, run, send, start_worker
from tests.journeys.receiver import Receiver
from tests.nightly import amount
from tests.ports import own_port
from tests.redis_user import PASSWORD, make_user
from tests.tls import HERE, Certificates, TlsRelay
from tests.topologies import LocalCluster
from tests.waiting import until


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def client_certificate(certificates):
    return certificates.signed("client", x509.DNSName("client.example.com"))


def administrators(stack, folder, kind):
    """Start one Redis or a Cluster, with the shipped user; return its clients by their ports."""
    if kind == "single":
        started = ensure_running(folder / "redis")
        stack.callback(stop, folder / "redis")
        urls, more = {urlsplit(started.url).port: started.url}, []
    else:
        cluster = stack.enter_context(LocalCluster(folder / "cluster", replicas=False))
        login, more = f"redis://:{cluster.password}@127.0.0.1", ["+cluster|slots"]
        urls = {port: f"{login}:{port}" for port in cluster.nodes}
    clients = {port: stack.enter_context(connect(url)) for port, url in urls.items()}
    for client in clients.values():
        make_user(client, *more)
    return clients


def announce(admins, relays):
    """Let the nodes of a Cluster tell that they are reached by these relays."""
    told = {relay.listens_at for relay in relays}
    for admin, relay in zip(admins, relays, strict=True):
        admin.config_set("cluster-announce-port", relay.listens_at)
    until(lambda: all(ports_of(admin) == told for admin in admins), 30)


def ports_of(admin):
    """Return the ports at which the nodes say that they are reached."""
    return {node[1] for _, _, node, *_ in admin.execute_command("CLUSTER SLOTS")}


def address(relays, authority, certificate, kind="single"):
    options = {"ssl_ca_certs": authority}
    options |= zip(("ssl_certfile", "ssl_keyfile"), certificate, strict=False)
    scheme = {"single": "rediss", "cluster": "rediss+cluster"}[kind]
    hosts = ",".join(f"127.0.0.1:{relay.listens_at}" for relay in relays)
    return f"{scheme}://segrelay:{PASSWORD}@{hosts}/0?{urlencode(options)}"


@pytest.mark.parametrize("kind", amount(["single"], nightly=["single", "cluster"]))
def test_everything_works_by_tls_with_the_shipped_rights(
    tmp_path, redis_url, certificates, client_certificate, kind
):
    mine = certificates.signed("server")
    receiver, flower = Receiver(), own_port()
    happened, sent = invent(300, 60)
    (tmp_path / "rig").mkdir()
    with ExitStack() as stack:
        admins = administrators(stack, tmp_path, kind)
        relays = [
            stack.enter_context(TlsRelay(port, mine, certificates.authority)) for port in admins
        ]
        if kind == "cluster":
            announce(admins.values(), relays)
        rig = stack.enter_context(
            Rig(
                tmp_path / "rig",
                redis_url=address(relays, certificates.authority, client_certificate, kind),
                redis_lines=f'broker_url = "{redis_url}"' if kind == "cluster" else "",
                delivery_lines=SHORT,
                more=receiver.table()
                + table("flower", listen=f"127.0.0.1:{flower}", password="a password"),
            )
        )
        start_worker(rig)
        receiver.start(rig)
        rig.start_beside("flower")
        send(rig, lines(sent[:200]))
        assert receiver.post(lines(sent[200:])) == 200
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)
        until(lambda: drained(flower), 60)
        well(rig)
        run(rig, "redis", "status")
        run(rig, "audience", "list")
        rig.stop_workers()
        assert all(relay.taken for relay in relays)
        assert [entry for admin in admins.values() for entry in admin.acl_log()] == []


def drained(port):
    try:
        found = httpx.get(f"http://127.0.0.1:{port}/api/tasks", auth=("ops", "a password"))
    except httpx.TransportError:
        return False
    return found.is_success and found.json()


@pytest.mark.parametrize("wrong", amount(["authority"], nightly=["authority", "host", "client"]))
def test_a_wrong_certificate_is_refused_by_us_and_by_celery(
    tmp_path, certificates, client_certificate, wrong
):
    host = x509.DNSName("other.example.com") if wrong == "host" else HERE
    trusted = certificates.authority
    if wrong == "authority":
        trusted = Certificates(tmp_path / "others", "other").authority
    with TlsRelay(own_port(), certificates.signed("server", host), certificates.authority) as relay:
        url = address([relay], trusted, () if wrong == "client" else client_certificate)
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
