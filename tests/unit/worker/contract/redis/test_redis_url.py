import pytest
import redis

from segrelay.worker.contract.celery import connection_options
from segrelay.worker.contract.redis.connection import connect, resolve_broker_url, resolve_url
from segrelay.worker.contract.redis.url import broker_url_of, parse_redis_url
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.errors import ConfigurationInvalid


@pytest.mark.parametrize(
    ("url", "hosts", "database"),
    [
        ("redis://redis", (("redis", 6379),), 0),
        ("redis://localhost:6380/", (("localhost", 6380),), 0),
        ("redis://localhost:6380/3", (("localhost", 6380),), 3),
        ("redis://[::1]:6380/1", (("::1", 6380),), 1),
        ("redis+sentinel://a,b:26380/main/2", (("a", 26379), ("b", 26380)), 2),
        ("redis+cluster://a,b:7001", (("a", 6379), ("b", 7001)), 0),
        ("rediss+cluster://:p@a:7000/0", (("a", 7000),), 0),
    ],
)
def test_hosts_and_database_are_read(url, hosts, database):
    address = parse_redis_url(url)

    assert address.hosts == hosts
    assert address.database == database


def test_user_and_password_are_decoded_and_never_shown():
    address = parse_redis_url("redis://us%40er:p%2Fa%3Ass@redis:1/0")

    assert (address.username, address.password) == ("us@er", "p/a:ss")
    assert address.shown == "redis:1"
    assert "us@er" not in repr(address)
    assert "p/a:ss" not in repr(address)


def test_the_service_of_sentinels_is_read():
    address = parse_redis_url("redis+sentinel://:pw@a:1,[::1]:2/main?sentinel_password=other")

    assert address.service == "main"
    assert address.sentinel_options == {"password": "other"}
    assert address.shown == "main of the Sentinels a:1,[::1]:2"


def test_the_nodes_of_a_cluster_are_read():
    address = parse_redis_url("redis+cluster://:pw@a:1,[::1]:2")

    assert address.is_cluster
    assert address.shown == "the Cluster a:1,[::1]:2"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://redis", "redis://"),
        ("redis://", "HOST:PORT"),
        ("redis://host:port", "HOST:PORT"),
        ("redis://host:0", "HOST:PORT"),
        ("redis://[::1", "redis.url"),
        ("redis://a,b", r"redis\+sentinel://"),
        ("redis+sentinel://a,b", "name the master"),
        ("redis+cluster://a,b/3", "no databases"),
        ("redis+cluster://a?sentinel_username=b", r"takes nothing"),
        ("redis://host/main", "number of a database"),
        ("redis://:pa/ss@host", "%2F"),
        ("redis://:pa#ss@host", "%23"),
        ("redis://host?retry=3", r"\?retry="),
        ("redis://host?ssl_cert_reqs=none", r"\?ssl_cert_reqs="),
        ("rediss://host?ssl_cert_reqs=maybe", "required, optional, none"),
        ("rediss://host?ssl_check_hostname=perhaps", "true or false"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url, complaint):
    with pytest.raises(ConfigurationInvalid, match=complaint):
        parse_redis_url(url)


def test_a_complaint_does_not_repeat_the_password():
    for url in ("redis://:geheim@host/main", "redis://u:geheim@host?retry=1", "redis://:gehe/im@h"):
        with pytest.raises(ConfigurationInvalid) as found:
            parse_redis_url(url)

        assert "gehe" not in found.value.message


@pytest.mark.parametrize(
    ("url", "broker_url"),
    [
        ("redis://redis", "redis://redis:6379/0"),
        ("redis://u:p%40@redis:1/4", "redis://u:p%40@redis:1/4"),
        ("rediss://redis", "rediss://redis:6379/0?ssl_cert_reqs=required"),
        ("rediss://r?ssl_cert_reqs=none", "rediss://r:6379/0?ssl_cert_reqs=none"),
        ("redis+sentinel://:p@a:1,b:2/main/3", "sentinel://:p@a:1/3;sentinel://:p@b:2/3"),
    ],
)
def test_celery_gets_the_address_as_it_reads_it(url, broker_url):
    assert broker_url_of(parse_redis_url(url)) == broker_url


def test_the_broker_has_the_url_of_redis_unless_it_has_its_own():
    one = RedisSettings(url="redis://one:1/0")
    two = RedisSettings(url="redis://one:1/0", broker_url="redis://two:2/0")

    assert resolve_url(two) == "redis://one:1/0"
    assert resolve_broker_url(one) == "redis://one:1/0"
    assert resolve_broker_url(two) == "redis://two:2/0"


def test_behind_sentinels_tls_is_for_all_connections_and_for_celery_s():
    url = (
        "rediss+sentinel://u:p@a,b/main/1?ssl_ca_certs=/ca.pem&ssl_check_hostname=false"
        "&sentinel_username=guard&sentinel_password=pw"
    )
    tls = {"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}

    client, address = connect(url), parse_redis_url(url)

    assert address.sentinel_options == {
        **tls,
        "username": "guard",
        "password": "pw",
        "ssl": True,
    }
    for connection in (
        client.connection_pool.make_connection(),
        client.router.ask(address.hosts[0]).connection_pool.make_connection(),
    ):
        assert isinstance(connection, redis.SSLConnection)
        assert connection.ca_certs == "/ca.pem"
        assert not connection.check_hostname
    options = connection_options(address)
    assert options["broker_use_ssl"] == {"ssl_cert_reqs": "required", **tls}
    assert options["broker_transport_options"]["sentinel_kwargs"]["ssl"]


def test_tls_is_verified_unless_the_url_says_otherwise():
    strict = connect("rediss://redis").connection_pool.make_connection()
    lax = connect(
        "rediss://redis?ssl_cert_reqs=none&ssl_check_hostname=false"
    ).connection_pool.make_connection()

    assert strict.cert_reqs.name == "CERT_REQUIRED"
    assert strict.check_hostname
    assert lax.cert_reqs.name == "CERT_NONE"
    assert not lax.check_hostname
