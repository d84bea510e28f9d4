"""The console over HTTP, beside a real worker: what it shows, who may act, and what attacks it."""

import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import pytest

from segrelay.ops.console.command import PAGES
from segrelay.ops.dead_letters.reading import find_dead_letters
from segrelay.ops.embedded import free_port
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.redis.acts import read_acts
from tests.journeys.console.world import (
    HOSTILE,
    MENDED,
    PASSWORD,
    REFUSED,
    Browser,
    World,
    answers,
    event,
    words,
)
from tests.journeys.play import status_of
from tests.waiting import allowed, until

DEAD = 12
LISTED = tuple(page.path for page in PAGES if "{" not in page.path and page.path != "/act")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("console"), console_lines='secret = "seals sessions"') as it:
        it.start_worker("--concurrency=1")
        it.wait_until_ready()
        it.start_console()
        it.publish([event(f"p{n}@example.com", first_name=HOSTILE) for n in range(30)])
        it.publish([event(f"p{n}@{REFUSED}") for n in range(DEAD)])
        it.publish([event("h@example.com", slug=HOSTILE), event("i@example.com", slug="vipp")])
        it.settle(delivered=30, dead=DEAD)
        yield it


@pytest.fixture(scope="module")
def ann(world):
    return world.sign_in("ann")


@pytest.fixture(scope="module")
def vic(world):
    return world.sign_in("vic")


def dead_letters(world):
    return list(find_dead_letters(world.client, world.partitions()))


def links(page, begin):
    """Return the addresses on a page that begin like this."""
    return [part.split('"')[0] for part in page.split('href="')[1:] if part.startswith(begin)]


def test_the_first_page_has_the_balance_and_the_problems(world, vic):
    said = until(lambda: "sync fails" in (page := words(vic.get("/").text)) and page)

    assert "accepted 42 = delivered 30 + skipped 0 + dead 12 + discarded 0 + waiting 0" in said
    assert f"{world.settings.destinations['insider'].name} ok" in said
    assert "staging" in said


def test_from_a_cause_one_comes_to_a_letter_with_the_line_that_failed(vic):
    page = vic.get("/letters").text
    cause = links(page, "/letters?cause=")[0]
    dead_letter = links(vic.get(cause).text, "/letters/insider.")[0]

    said = words(vic.get(dead_letter, **{"try": "1"}).text)

    assert "12 letters" in words(page)
    assert "template_error" in said
    assert "6 then error" in said
    assert "With today's template it would be dead" in said


def test_nothing_personal_is_on_any_page_of_a_viewer(world, vic):
    dead_letter = dead_letters(world)[0]
    digest = dead_letter["header"][1]
    record = links(vic.get("/quarantine").text, "/quarantine/")[0]
    own = (
        f"/letters/{dead_letter['id']}",
        f"/people/{digest}?partition={dead_letter['partition']}",
        record,
    )

    for path in (*LISTED, *own):
        answer = vic.get(path)
        assert answer.status_code == 200, path
        assert not re.search(r"[a-z0-9]@[a-z]", answer.text), path


def test_a_person_is_found_and_stands_in_the_address_as_a_digest(vic):
    answer = vic.post("/people", person=f"p1@{REFUSED}")

    page = vic.get(answer.headers["location"])

    assert answer.status_code == 303
    assert "p1" not in answer.headers["location"]
    assert "dead letter" in words(page.text)
    assert re.search("<title>(.* ill. )?Person ", page.text)
    assert vic.post("/people", person="nobody@example.com").status_code == 404


def test_only_a_revealer_sees_who_it_is_and_the_audit_has_it(world, ann, vic):
    dead_letter = dead_letters(world)[0]
    path = f"/letters/{dead_letter['id']}"
    email = dead_letter["profile"]["email"]
    person = f"/people/{dead_letter['header'][1]}?partition={dead_letter['partition']}"
    for other in (links(vic.get("/quarantine").text, "/quarantine/")[0], person):
        answer = vic.post(other, reason="curious")
        assert (answer.status_code, "revealer" in answer.text) == (403, True)

    refused = vic.post(path, reason="curious")
    without = ann.post(path, reason=" ")
    shown = ann.post(path, reason="ticket 7")

    assert (refused.status_code, without.status_code) == (403, 403)
    assert email not in refused.text + without.text + vic.get(path).text
    assert email in shown.text
    (act,) = [act for act in read_acts(world.client) if act.what == "reveal"]
    assert (act.by, act.subject, act.reason) == ("ann", f"letter {dead_letter['id']}", "ticket 7")


def test_a_viewers_crafted_post_is_refused(world, vic):
    answer = vic.post("/act", act="pause", name="insider", why="I want to")

    assert (answer.status_code, "operator" in answer.text) == (403, True)
    acts = [act for act in read_acts(world.client) if act.by == "vic"]
    assert {act.what for act in acts} <= {"sign in"}


@pytest.mark.parametrize(
    "path", ["/login", "/logout", *(page.path for page in PAGES if page.takes_posts)]
)
def test_a_post_from_another_site_is_refused_at_every_address(ann, path):
    there = re.sub(r"\{.*?\}", "x", path)

    answer = ann.post(there, headers={"Sec-Fetch-Site": "cross-site"}, reason="no")

    assert answer.status_code == 403
    assert "Sec-Fetch-Site says cross-site" in answer.text


def test_a_session_is_needed_and_others_posts_do_not_begin_one(world):
    browser = Browser(world.url)

    assert browser.get("/letters").headers["location"] == "/login?next=%2Fletters"
    assert browser.post("/act", act="pause", name="insider", why="x").status_code == 403
    assert browser.post("/login", name="ann", password="wrong").status_code == 403
    assert not browser.cookies


def test_after_signing_in_nobody_is_led_to_another_site(world):
    for address in ("https://evil.example", "//evil.example", "/\\evil.example"):
        path = f"/login?next={quote(address)}"
        answer = Browser(world.url).post(path, name="vic", password=PASSWORD)
        assert answer.headers["location"] == "/"


def test_every_answer_has_the_headers_that_keep_other_sites_out(world, vic):
    for path in (*LISTED, "/nowhere", "/static/console.css"):
        headers = vic.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
    cookie = Browser(world.url).post("/login", name="vic", password=PASSWORD).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()


def test_pausing_and_resuming_is_done_once_by_the_command_and_is_in_the_audit(world, ann):
    form = {"act": "pause", "name": "trigger:exit", "why": "a test", "once": "abc"}
    first, second = (ann.post("/act", **form).headers["location"] for _ in range(2))
    paused = ann.ended(first)
    at_once = words(ann.get("/").text)
    resumed = ann.act("resume", name="trigger:exit")

    assert first == second
    assert "exit paused a test (by ann)" in at_once
    assert "segrelay pause trigger:exit" in paused
    assert "done" in words(resumed)
    acts = [(act.what, act.by, act.reason) for act in read_acts(world.client)][:2]
    assert acts == [("resume", "ann", "a test"), ("pause", "ann", "a test")]
    assert "resume" in words(ann.get("/audit", by="ann").text)


def test_what_can_not_be_undone_asks_for_its_number(world, ann):
    for count in ("", "3", "many", "12000"):
        refused = ann.post("/act", act="dlq discard", why="no", count=count)
        assert refused.status_code == 403
        assert "Nothing was done" in refused.text
    assert len(dead_letters(world)) == DEAD


def test_a_dry_run_says_what_a_replay_would_do_and_changes_nothing(world, vic):
    cause = dead_letters(world)[0]["cause"]
    answer = vic.post("/act", act="dlq replay", cause=cause, dry_run="1")
    begun = vic.get(answer.headers["location"]).text
    page = vic.ended(answer.headers["location"])

    said = words(page)
    assert ("Go on to the act" in begun) == ("data-over" in begun)
    assert said.index("Go on to the act") < said.index("would be dead")

    assert f"would be dead {DEAD}" in said
    assert f"--cause={cause} --dry-run" in said
    assert len(dead_letters(world)) == DEAD


def test_two_operators_replay_the_same_letters_at_once(world, ann):
    (world.folder / "templates" / "insider" / "enter.jsonnet").write_text(MENDED)
    path = f"/letters/{dead_letters(world)[0]['id']}?try=1"
    until(lambda: "would be sent" in words(ann.get(path).text))
    bob = world.sign_in("bob")
    cause = dead_letters(world)[0]["cause"]

    with ThreadPoolExecutor() as pool:
        pages = list(pool.map(lambda who: who.act("dlq replay", cause=cause), (ann, bob)))

    world.settle(dead=0, waiting=0)
    replayed = [act.count for act in read_acts(world.client) if act.what == "dlq replay"]
    assert all("done" in words(page) for page in pages)
    assert sum(filter(None, replayed)) == DEAD
    assert status_of(world)["delivered"] == 30 + DEAD
    until(lambda: "There is no dead letter." in words(ann.get("/letters").text))


def test_a_job_waits_at_its_canary_and_goes_on_by_a_click(world, ann):
    file = world.folder / "members.csv"
    file.write_text("email\n" + "".join(f"j{n}@example.com\n" for n in range(20)))
    options = ("--audience", "vip", "--as-of", "now", "--job", "november", "--canary", "5")
    assert world.command("backfill", "start", str(file), *options).returncode == 0
    until(lambda: "at its canary" in words(ann.get("/jobs").text))

    said = words(ann.get("/jobs/november").text)
    done = words(ann.act("backfill resume", job="november"))

    assert "5 rows first" in said
    assert "members.csv" in said
    assert "rows 20" in done
    until(lambda: "100 % settled" in words(ann.get("/jobs/november").text))
    assert ann.get("/jobs/nothing").status_code == 404
    assert "exports" in words(ann.get("/syncs/members").text)
    assert "members" in words(ann.get("/jobs").text)


def test_a_discard_of_the_quarantine_takes_what_it_has_said(ann):
    said = words(ann.act("quarantine discard", audience="vipp", count="1"))

    assert "discarded 1" in said
    assert "vipp" not in ann.get("/quarantine").text


def test_the_tap_shows_how_deliveries_ended_without_anybodys_data(world, vic):
    digest = digest_of("email:q@example.com").hex()
    world.publish([event("q@example.com", first_name=HOSTILE)])

    def shown_ends():
        page = vic.get("/tap", person=digest).text
        return "delivered 200" in words(page) and page

    shown = until(shown_ends)

    assert links(shown, f"/people/{digest}?partition=")
    assert not re.search(r"[a-z0-9]@[a-z]|<script>alert", shown)
    assert "no trigger nobody" in vic.get("/tap", trigger="nobody").text
    refused = vic.get("/tap", person="q@example.com").text
    assert "A person is a digest here" in refused


def test_two_consoles_share_sessions_and_count_tries_together(world, ann):
    here = ann.post("/act", act="pause", name="trigger:exit", why="a test").headers["location"]
    ann.ended(here)
    port = free_port()
    world.start_beside("console", "--listen", f"127.0.0.1:{port}")
    other = Browser(f"http://127.0.0.1:{port}")
    other.cookies = ann.cookies
    until(lambda: answers(f"{other.url}/healthz"))

    assert "exit paused a test (by ann)" in words(other.get("/").text)
    gone = other.get(here)
    assert gone.status_code == 404
    assert "does not know how that command stands" in gone.text
    assert other.get("/audit", by="ann").text.count("a test") >= 1
    other.act("resume", name="trigger:exit")
    tries = [
        Browser(each).post("/login", name="mallory", password="x")
        for each in [world.url, other.url] * 3
    ]
    assert [one.status_code for one in tries] == [403] * 5 + [429]
    assert 0 < int(tries[-1].headers["Retry-After"]) <= 300


def test_without_redis_pages_say_so_in_time_and_come_back(world, ann):
    world.kill_redis()
    try:
        answer = until(lambda: (found := ann.get("/")).status_code == 503 and found)
        login = httpx.get(f"{world.url}/login")
        entered = Browser(world.url).post("/login", name="ann", password=PASSWORD)
    finally:
        world.start_redis()

    assert "Redis can" in answer.text
    assert answer.elapsed.total_seconds() < allowed(5)
    assert login.status_code == 200
    assert (entered.status_code, "set-cookie" in entered.headers) == (503, False)
    until(lambda: ann.get("/").status_code == 200)
