"""Objects of S3, Google Cloud and Azure, read and written as files of this machine are."""

import gzip
import io
import os
import sys
from functools import partial

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from segrelay.ops.outcomes import put
from segrelay.ops.run.up import own_command
from segrelay.producer.sources.blocks import blocks_of
from segrelay.producer.sources.opening import files_of, listing_of, look_at_file, opened
from segrelay.producer.sources.remote import RANGE_BYTES
from segrelay.producer.sources.tables import Columns
from segrelay.producer.sync.sources import FileSource
from segrelay.worker.errors import ScanExpired, SourceChanged, UsageWrong
from tests.clouds import BUCKET, cloud
from tests.s3 import S3Bucket, s3_bucket
from tests.warm import run

ROWS = 3_000


@pytest.fixture
def s3(monkeypatch):
    with s3_bucket(monkeypatch) as client:
        yield S3Bucket(client)


@pytest.fixture(params=["s3", "gs", "az"])
def bucket(request, monkeypatch):
    if request.param == "s3":
        yield request.getfixturevalue("s3")
    else:
        with cloud(request.param, monkeypatch) as found:
            yield found


def rows(padding="x" * 8_000):
    """Return so many rows that they lie in several ranges."""
    return b"".join(
        orjson.dumps({"email": f"p{n}@example.com", "pad": padding}) + b"\n" for n in range(ROWS)
    )


def emails(url):
    with opened(url) as file:
        blocks = blocks_of(file, Columns())
        found = [payload.value["email"] for block in blocks for payload in block.payloads()]
        file.refuse_change()
        file.refuse_damage("somewhere")
    return found


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress])
def test_an_object_is_read_in_ranges_to_its_end(bucket, pack):
    content = pack(rows())
    bucket.put("people.json", content)

    assert emails(bucket.url("people.json")) == [f"p{n}@example.com" for n in range(ROWS)]
    if not isinstance(bucket, S3Bucket):
        assert len(bucket.ranges) == -(-len(content) // RANGE_BYTES)


def test_an_object_that_is_replaced_or_removed_while_it_is_read_is_noticed(bucket):
    replaced = rows("y" * 8_000)
    for change in (partial(bucket.put, "p.json", replaced), partial(bucket.remove, "p.json")):
        bucket.put("p.json", rows())
        with opened(bucket.url("p.json")) as file:
            found = blocks_of(file, Columns())
            next(found)
            change()

            with pytest.raises(SourceChanged, match="was written to, or removed"):
                list(found)


def test_a_prefix_and_a_pattern_name_the_objects_below(bucket):
    for name in ("in/b.csv", "in/a.csv", "in/_SUCCESS", "in/deep/c.csv", "out/d.csv"):
        bucket.put(name, b"email\n")

    def named(source):
        return [name.removeprefix(bucket.url("")) for name in files_of(bucket.url(source))]

    assert named("in/") == ["in/a.csv", "in/b.csv", "in/deep/c.csv"]
    assert named("in/*.csv") == ["in/a.csv", "in/b.csv"]
    assert named("in*/*/c.csv") == ["in/deep/c.csv"]
    assert listing_of(bucket.url("none/")) == {}


def test_a_list_and_a_look_tell_the_same_of_an_object_and_another_of_its_next_version(bucket):
    bucket.put("in/a.csv", b"email\n")
    url = bucket.url("in/a.csv")

    (listed,) = listing_of(bucket.url("in/")).values()
    looked = look_at_file(url)
    bucket.put("in/a.csv", b"Email\n")

    assert (listed.size, listed.version) == (looked.size, looked.version)
    assert listed.version
    assert listed.changed_ns // 10**9 == looked.changed_ns // 10**9
    assert look_at_file(url).version != looked.version


def test_what_is_not_there_is_named(bucket):
    for nothing in ("none/", "none-*/*"):
        assert files_of(bucket.url(nothing)) == []
    with (
        pytest.raises(UsageWrong, match="there is no such object or bucket"),
        opened(bucket.url("none.csv")),
    ):
        pass
    other = bucket.url("in/").replace(BUCKET, "other")
    with pytest.raises(UsageWrong, match="there is no such object or bucket"):
        listing_of(other)


def test_an_object_of_outcomes_is_written_once_and_as_a_whole(bucket):
    address = bucket.url("outcomes/one.ndjson")
    content = b'{"x":1}\n' * (70 * 2**17 if isinstance(bucket, S3Bucket) else 1)  # in parts, or not

    put(address, lambda stream: stream.write(content))
    put(address, lambda stream: stream.write(b"other\n"))

    assert bucket.contents() == {"outcomes/one.ndjson": content}


def test_a_writer_that_stood_still_overwrites_no_object(bucket):
    def slow(stream):
        bucket.put("outcomes/one.ndjson", b"whole\n")
        stream.write(b"half")

    put(bucket.url("outcomes/one.ndjson"), slow)

    assert bucket.contents() == {"outcomes/one.ndjson": b"whole\n"}


def test_outcomes_need_a_bucket_that_is_there(bucket):
    other = bucket.url("outcomes/one.ndjson").replace(BUCKET, "other")
    with pytest.raises(UsageWrong, match="there is no such object or bucket"):
        put(other, lambda stream: stream.write(b"x"))


def test_parquet_is_read_from_a_bucket(bucket):
    content = io.BytesIO()
    parquet.write_table(pa.table({"email": [f"p{n}@example.com" for n in range(100)]}), content)
    bucket.put("people.parquet", content.getvalue())

    assert len(emails(bucket.url("people.parquet"))) == 100


@pytest.mark.usefixtures("s3")
def test_a_url_with_a_password_is_refused_and_not_shown():
    with (
        pytest.raises(UsageWrong, match="a URL with a password") as refused,
        opened(f"s3://id:secret@{BUCKET}/none.json"),
    ):
        pass
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(("extra", "module"), [("gs", "gcsfs"), ("az", "adlfs")])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch, extra, module):
    monkeypatch.setitem(sys.modules, module, None)
    command = rf"{extra}:// needs an extra .*: pip install 'segrelay\[{extra}\]'"

    with pytest.raises(UsageWrong, match=command), opened(f"{extra}://bucket/none.json"):
        pass


@pytest.mark.usefixtures("s3")
def test_missing_credentials_and_a_missing_server_are_told_apart(tmp_path):
    names = [name for name in os.environ if not name.startswith("AWS_")]
    own = {name: os.environ[name] for name in names} | {"HOME": str(tmp_path)}
    url = f"s3://{BUCKET}/people.json"

    def told(**environment):
        """Send the object in an environment of our own; returns the status and what is said."""
        environment["AWS_EC2_METADATA_DISABLED"] = "true"
        ran = run(own_command("send", url), env=own | environment)
        return ran.returncode, " ".join(ran.stderr.decode().split())

    status, said = told(AWS_ENDPOINT_URL=os.environ["AWS_ENDPOINT_URL"])
    assert status == 2
    assert f"{url}: there are no credentials. Set AWS_ACCESS_KEY_ID" in said

    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "canary"}
    status, said = told(AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1", **keys)
    assert status == 1
    assert f"{url} can't be reached" in said
    assert "canary" not in said


def test_a_sync_reads_the_newest_object_and_notices_a_new_version(bucket):
    bucket.put("daily/a.csv", b"email\nann@example.com\n")
    pattern = bucket.url("daily/*.csv")
    changed_ns = look_at_file(bucket.url("daily/a.csv")).changed_ns
    with FileSource(pattern, Columns(), now=lambda: changed_ns / 1e9 + 60) as source:
        page = source.page("")

        assert [row["email"] for row in page.rows] == ["ann@example.com"]
        source.refuse_change(page.origin)
        bucket.put("daily/a.csv", b"email\nbob@example.com\n")
        source.refuse_change(page.origin)  # what was read was one whole version
    with FileSource(pattern, Columns()) as source, pytest.raises(ScanExpired):
        source.page(page.origin)


def test_a_file_on_a_web_server_is_to_be_downloaded_first():
    with pytest.raises(UsageWrong, match="download it first"), opened("https://example.com/p.csv"):
        pass


def test_outcomes_are_written_into_buckets_and_folders_only():
    with pytest.raises(UsageWrong, match="can't be written to"):
        put("https://example.com/outcomes", lambda stream: stream.write(b"x"))
