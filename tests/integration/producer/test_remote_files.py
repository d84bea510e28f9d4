"""Files in a bucket and on a web server, read as those of this machine."""

import gzip
import os
import subprocess
import sys

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from segrelay.ops.outcomes import files
from segrelay.producer.sources.blocks import blocks_of
from segrelay.producer.sources.opening import FileState, files_of, opened
from segrelay.producer.sources.remote import RANGE_BYTES
from segrelay.producer.sources.tables import Columns
from segrelay.producer.sync.sources import FileSource
from segrelay.worker.errors import (
    ScanExpired,
    SourceChanged,
    SourceUnavailable,
    UsageWrong,
)
from tests.s3 import BUCKET, s3_bucket, web_server

ROWS = 3_000
PADDING = "x" * 8_000
"""So much that the rows lie in several ranges."""


@pytest.fixture
def s3(monkeypatch):
    with s3_bucket(monkeypatch) as client:
        yield client


def rows(count=ROWS, padding=PADDING):
    return b"".join(
        orjson.dumps({"email": f"p{n}@example.com", "pad": padding}) + b"\n" for n in range(count)
    )


def emails(name):
    with opened(name) as file:
        found = [
            payload.value["email"]
            for block in blocks_of(file, Columns())
            for payload in block.payloads()
        ]
        file.refuse_change()
        file.refuse_damage("somewhere")
    return found


def put(s3, key, content):
    s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    return f"s3://{BUCKET}/{key}"


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress])
def test_an_object_is_read_in_ranges_to_its_end(s3, pack):
    content = rows()
    assert len(content) > 2 * RANGE_BYTES

    url = put(s3, "people.json.gz", pack(content))

    assert emails(url) == [f"p{n}@example.com" for n in range(ROWS)]


def test_parquet_is_read_from_a_bucket(s3, tmp_path):
    table = pa.table({"email": [f"p{n}@example.com" for n in range(100)]})
    parquet.write_table(table, tmp_path / "people.parquet")

    url = put(s3, "people.parquet", (tmp_path / "people.parquet").read_bytes())

    assert len(emails(url)) == 100


def test_an_object_that_is_replaced_while_it_is_read_is_noticed(s3):
    url = put(s3, "people.json", rows())
    with opened(url) as file:
        blocks = blocks_of(file, Columns())
        next(blocks)
        put(s3, "people.json", rows(padding="y" * 8_000))

        with pytest.raises(SourceChanged, match="was written to, or removed"):
            list(blocks)
        with pytest.raises(SourceChanged):
            file.refuse_change()


def test_an_object_that_is_removed_while_it_is_read_is_noticed(s3):
    url = put(s3, "people.json", rows())
    with opened(url) as file:
        blocks = blocks_of(file, Columns())
        next(blocks)
        s3.delete_object(Bucket=BUCKET, Key="people.json")

        with pytest.raises(SourceChanged, match="was written to, or removed"):
            list(blocks)


def test_an_object_with_other_content_has_another_digest(s3):
    def digest(content):
        with opened(put(s3, "people.json", content)) as file:
            return file.digest

    first = digest(rows(3))
    assert digest(rows(3)) == first
    assert digest(rows(3).replace(b"p1@", b"p7@")) != first


def test_patterns_and_prefixes_name_objects_in_order(s3):
    for key in ("2026-11-02/part-1", "2026-11-01/part-2", "2026-11-01/part-1", "2026-11-01/_DONE"):
        put(s3, f"in/{key}.json", b"{}")
    base = f"s3://{BUCKET}/in"

    assert files_of(f"{base}/2026-*/part-1.json") == [
        f"{base}/2026-11-01/part-1.json",
        f"{base}/2026-11-02/part-1.json",
    ]
    assert files_of(f"{base}/2026-11-01/") == [
        f"{base}/2026-11-01/part-1.json",
        f"{base}/2026-11-01/part-2.json",
    ]
    for nothing in (f"{base}/2027-*/*", f"{base}/2027/"):
        with pytest.raises(UsageWrong, match="there is no such object"):
            files_of(nothing)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"s3://{BUCKET}/none.json", "there is no such object or bucket"),
        ("s3://no-such-bucket/none.json", "there is no such object or bucket"),
        ("s3://id:secret@exports/none.json", "a URL with a password"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_what_is_not_there_is_named(url, message):
    with pytest.raises(UsageWrong, match=message) as refused, opened(url):
        pass
    assert "secret" not in refused.value.message


OPEN = """
import sys
from segrelay.producer.sources.opening import opened
from segrelay.worker.errors import SegrelayError
try:
    with opened(sys.argv[1]):
        pass
except SegrelayError as error:
    print(error.exit_code, error.message)
"""


NOT_INSTALLED = "import sys; sys.modules.update(gcsfs=None, adlfs=None)\n"


def opened_with(url, program=OPEN, **environment):
    """Open a file in a process with another environment; returns what it says."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    ran = subprocess.run(
        [sys.executable, "-c", program, url], env=own | environment, capture_output=True, check=True
    )
    return ran.stdout.decode()


@pytest.mark.parametrize("extra", ["gs", "az"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(extra):
    says = opened_with(f"{extra}://bucket/none.json", NOT_INSTALLED + OPEN)

    assert says.startswith(f"2 {extra}:// needs an extra that is not installed")
    assert f"pip install 'segrelay[{extra}]'" in says


def test_missing_credentials_and_a_missing_server_are_told_apart(s3, tmp_path):
    none = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    url = f"s3://{BUCKET}/people.json"

    without = opened_with(url, AWS_ENDPOINT_URL=s3.meta.endpoint_url, **none)
    assert without.startswith(f"2 {url}: there are no credentials. Set AWS_ACCESS_KEY_ID")

    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "canary", **none}
    away = opened_with(url, AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1", **keys)
    assert away.startswith(f"1 {url} can't be reached")
    assert "canary" not in away


def test_a_sync_reads_the_newest_object_and_notices_a_new_version(s3):
    put(s3, "daily/a.csv", b"email\nann@example.com\n")
    pattern = f"s3://{BUCKET}/daily/*.csv"
    changed_ns = FileState.of(f"s3://{BUCKET}/daily/a.csv").changed_ns
    with FileSource(pattern, Columns(), now=lambda: changed_ns / 1e9 + 60) as source:
        page = source.page("")

        assert [row["email"] for row in page.rows] == ["ann@example.com"]
        source.refuse_change(page.origin)
        first = page.origin
        put(s3, "daily/a.csv", b"email\nbob@example.com\n")
        source.refuse_change(first)  # what was read was one whole version
    with FileSource(pattern, Columns()) as source, pytest.raises(ScanExpired):
        source.page(first)


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_file_on_a_web_server_is_read_whatever_the_server_can(has_ranges):
    with web_server(has_ranges=has_ranges) as web:
        web.files["/people.json"] = rows()
        web.failures = 2

        assert len(emails(f"{web.url}/people.json")) == ROWS
        assert len([one for one in web.requests if one]) >= (3 if has_ranges else 1)
        with opened(f"{web.url}/people.json") as file:
            first = file.digest
        web.files["/people.json"] = rows(padding="y" * 8_000)
        with opened(f"{web.url}/people.json") as file:
            assert file.digest != first


def test_a_file_on_a_web_server_that_changes_while_it_is_read_is_noticed():
    with web_server(has_ranges=True) as web:
        web.files["/people.json"] = rows()
        with opened(f"{web.url}/people.json") as file:
            blocks = blocks_of(file, Columns())
            next(blocks)
            web.files["/people.json"] = rows(padding="y" * 8_000)

            with pytest.raises(SourceChanged):
                list(blocks)


def test_an_empty_file_on_a_web_server_is_empty():
    with web_server(has_ranges=True) as web:
        web.files["/empty.json"] = b""
        assert emails(f"{web.url}/empty.json") == []


def test_urls_that_are_refused_say_why_and_hide_what_is_secret():
    with web_server(has_ranges=True) as web:
        for url, kind, message in (
            (f"{web.url}/none.json", UsageWrong, "there is no such file"),
            (f"{web.url}/p.json?sig=canary", UsageWrong, "may hold a secret"),
            (web.url.replace("//", "//me:canary@") + "/p.json", UsageWrong, "may hold a secret"),
            ("http://files.example.com/p.json", UsageWrong, "in the clear"),
            ("http://127.0.0.1:9/p.json", SourceUnavailable, "can't be reached"),
        ):
            with pytest.raises(kind, match=message) as refused, opened(url):
                pass
            assert "canary" not in refused.value.message


def test_an_object_of_outcomes_is_written_once_and_as_a_whole(s3):
    def slow(stream):
        s3.put_object(Bucket=BUCKET, Key="two.ndjson", Body=b"whole\n")
        stream.write(b"half")

    for content in (b"{}\n", b"other\n"):
        files.put(
            f"s3://{BUCKET}/one.ndjson", lambda stream, content=content: stream.write(content)
        )
    files.put(f"s3://{BUCKET}/two.ndjson", slow)

    found = [s3.get_object(Bucket=BUCKET, Key=f"{name}.ndjson") for name in ("one", "two")]
    assert [one["Body"].read() for one in found] == [b"{}\n", b"whole\n"]
    with pytest.raises(UsageWrong, match="can't be written to"):
        files.put("https://example.com/outcomes", slow)
