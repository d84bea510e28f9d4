import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrelay.worker.contract.settings.urls import (
    INSIDER_PATHS,
    erases,
    is_same_origin,
    join,
    masked,
    refuse_base_reason,
    refuse_reason,
)
from segrelay.worker.contract.settings.values import (
    format_duration,
    format_rate,
    parse_duration,
    parse_rate,
    read_secret,
)

INSIDER = "https://unification.useinsider.com"


@given(st.integers(0, 10**9))
def test_a_duration_is_read_back_from_its_text(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (parse_duration, "500ms", 0.5),
        (parse_duration, "10s", 10),
        (parse_duration, "1.5m", 90),
        (parse_duration, "1h30m", 5400),
        (parse_duration, "90d", 7_776_000),
        (parse_rate, "25000/min", 25_000),
        (parse_rate, "400/s", 24_000),
        (parse_rate, "1_000/h", 1000 / 60),
        (parse_rate, "0.5 / s", 30),
    ],
)
def test_durations_and_rates_are_read_also_as_they_are_shown(read, text, value):
    shown = {parse_duration: format_duration, parse_rate: format_rate}[read]

    assert read(text) == pytest.approx(value)
    assert read(shown(value)) == pytest.approx(value)


NO_DURATIONS = ["", "10", "s", "10 s", "-1s", "1e3s", "10S", "\u0661s", "9999999999w"]
NO_RATES = ["", "25000", "0/s", "-1/s", "1/day", "1e9/s", "9" * 400 + "/s"]


@pytest.mark.parametrize(
    ("read", "text"),
    [*((parse_duration, one) for one in NO_DURATIONS), *((parse_rate, one) for one in NO_RATES)],
)
def test_what_is_no_duration_or_rate_is_refused(read, text):
    with pytest.raises(ValueError, match=r"is not a duration|longer than|is not a rate"):
        read(text)


ERASING = [
    "/user/v1/delete",
    "/api/user/v1/delete",
    "/api/user/v1/delete/",
    "//api//user//v1//delete",
    "/API/User/V1/DELETE",
    "/api/user/v1/%64elete",
    "/api/user/v1/%2564elete",
    "/api/user%2Fv1%2Fdelete",
    "/api/user/v1/attribute/../delete",
    "/api/user/v1/attribute/%2e%2e/delete",
    "/api/user/./v1/delete",
    "/api/user/v1/delete;a=1",
    "/api/user/v1/delete?a=1",
    "/api/user/v1/delete#a",
    "/api\\user\\v1\\delete",
    "/api/user/v1/de\tlete",
    "/api/user/v1/delete%00",
    "/api/user/v1/delete%20",
    "/api/user/v1/\uff44elete",
    "/api/user/v1/delete/profiles",
    "/api/user/v1/delete/..",
    "/api/user/v1/%" + "25" * 20 + "64elete",
]


@pytest.mark.parametrize("path", ERASING)
def test_the_path_that_erases_is_refused_however_written(path):
    for base in (INSIDER, "http://127.0.0.1:9999/proxy", "https://x.example.com"):
        assert refuse_reason(join(base, path), "insider") is not None
        assert refuse_reason(join(base, path), "http") is not None


@given(st.text("/.%25eE64uservdlt1", max_size=24))
def test_at_insider_nothing_but_the_two_paths_is_allowed(path):
    assert refuse_reason(f"{INSIDER}/{path}", "http") is not None


INSIDERS_OWN = [
    "https://UNIFICATION.UseInsider.com/api/user/v2/upsert",
    "https://unification.useinsider.com./api/user/v2/upsert",
    "https://unification.useinsider.com:443/api/user/v2/upsert",
    "https://useinsider.com/anything",
    "https://unification.useinsider.com/API/user/v1/upsert",
    "https://unification.useinsider.com/api/user/v1/upsert/",
    "https://unification.useinsider.com/api/user/v1/upsert?a=1",
    "https://unification.use\u0131nsider.com/api/user/v1/upsert",
]
"""Insider's host is known however it is written."""
NO_URLS = [
    "http://10.0.0.1/in",
    "http://localhost.example.com/in",
    "http://127.1/in",
    "ftp://127.0.0.1/in",
    "//hooks.example.com/in",
    "https://",
    "https://ann@hooks.example.com/in",
    "https://hooks.example.com:0/in",
    "https://[::1/in",
    "https://hooks.example.com/in#part",
    "https://hooks.example.com/a b",
    "https://hooks.example.com/a\nb",
    "https://%68ooks.example.com/in",
]
"""What can't be sent to."""
OTHERS = [
    "https://hooks.example.com/in?list=a",
    "https://hooks.example.com/user/v1/delete-request",
    "https://hooks.example.com/user/v1/undelete",
    "https://notuseinsider.com/x",
    "http://127.0.0.1:9000/in",
    "http://[::1]:9000/in",
    "http://localhost:9000/in",
]


@pytest.mark.parametrize(
    ("url", "api", "is_refused"),
    [
        *((url, "http", True) for url in INSIDERS_OWN + NO_URLS),
        *((url, "http", False) for url in OTHERS),
        *((join(INSIDER, path), "insider", False) for path in INSIDER_PATHS),
    ],
)
def test_another_api_may_have_any_url_that_is_one_and_leads_to_no_other_path_of_insider(
    url, api, is_refused
):
    assert bool(refuse_reason(url, api)) is is_refused


@given(st.text(max_size=60))
def test_no_text_makes_the_checks_fail(text):
    refuse_reason(text, "http")
    refuse_reason(f"https://{text}", "insider")
    refuse_base_reason(text)
    erases(text)
    is_same_origin(text, INSIDER)
    masked(text)


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("https://a.example.com", "/x", "https://a.example.com/x"),
        ("https://a.example.com/b/", "x", "https://a.example.com/b/x"),
        (
            "https://a.example.com",
            "//evil.example.com/x",
            "https://a.example.com/evil.example.com/x",
        ),
        ("https://a.example.com/b", "", "https://a.example.com/b"),
        ("https://a.example.com", "https://c.example.com/x", "https://c.example.com/x"),
    ],
)
def test_paths_are_joined_below_the_base(base, path, url):
    assert join(base, path) == url


def test_an_origin_is_scheme_host_and_port():
    assert is_same_origin("https://A.example.com:443/x", "https://a.example.com")
    assert not is_same_origin("https://a.example.com:444/x", "https://a.example.com")
    assert not is_same_origin("https://b.example.com/x", "https://a.example.com")
    assert not is_same_origin("http://localhost/x", "https://localhost")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:p@ss/w@127.0.0.1:6379/0", "redis://***@127.0.0.1:6379/0"),
        ("redis+sentinel://u:p@a:1,b:2/main/0", "redis+sentinel://***@a:1,b:2/main/0"),
        ("redis://h/0?password=p&db=1", "redis://h/0?password=***&db=1"),
        ("redis://h/0?sentinel_password=p", "redis://h/0?sentinel_password=***"),
        ("embedded", "embedded"),
    ],
)
def test_passwords_in_redis_urls_are_masked(url, shown):
    assert masked(url) == shown


def test_a_secret_comes_from_the_environment_a_file_or_the_text(tmp_path):
    (tmp_path / "token").write_text(" from-file \n")

    def read(text):
        return read_secret(text, environ={"NAME": "from-env"}, folder=tmp_path)

    assert read("env:NAME").reveal() == "from-env"
    assert read("file:token").reveal() == "from-file"
    assert read(f"file:{tmp_path / 'token'}").reveal() == "from-file"
    assert read("literal:x").reveal() == "literal:x"
    assert read("env:NAME").origin == "env:NAME"
    assert "from" not in repr(read("env:NAME"))


@pytest.mark.parametrize("text", ["env:OTHER", "file:nowhere", "file:empty", "file:.", "", " "])
def test_a_secret_that_is_not_there_is_unset(text, tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff")

    secret = read_secret(text, environ={}, folder=tmp_path)

    assert not secret.is_set
    assert str(secret) == "unset"
    assert secret.why_unset
