"""Objects of S3, Google Cloud and Azure, read and written as files of this machine are."""

import gzip

import orjson
import pytest

from segrelay.ops.outcomes import put
from segrelay.producer.sources.blocks import blocks_of
from segrelay.producer.sources.opening import files_of, listing_of, look_at_file, opened
from segrelay.producer.sources.remote import RANGE_BYTES
from segrelay.producer.sources.tables import Columns
from segrelay.worker.errors import SourceChanged, UsageWrong
from tests.clouds import BUCKET, cloud
from tests.s3 import S3Bucket, s3_bucket

ROWS = 3_000


@pytest.fixture(params=["s3", "gs", "az"])
def bucket(request, monkeypatch):
    if request.param == "s3":
        with s3_bucket(monkeypatch) as client:
            yield S3Bucket(client)
    else:
        with cloud(request.param, monkeypatch) as found:
            yield found


def rows(padding="x" * 8_000):
    """Return so many rows that they lie in several ranges."""
    return b"".join(
        orjson.dumps({"email": f"p{n}@example.com", "pad": padding}) + b"\n" for n in range(ROWS)
    )


def blocks(file):
    return blocks_of(file, Columns())


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress])
def test_an_object_is_read_in_ranges_to_its_end(bucket, pack):
    content = pack(rows())
    bucket.put("people.json", content)

    with opened(bucket.url("people.json")) as file:
        found = [one.value["email"] for block in blocks(file) for one in block.payloads()]
        file.refuse_change()
        file.refuse_damage("somewhere")

    assert found == [f"p{n}@example.com" for n in range(ROWS)]
    if not isinstance(bucket, S3Bucket):
        assert len(bucket.ranges) == -(-len(content) // RANGE_BYTES)


@pytest.mark.parametrize(
    "change",
    [
        lambda bucket: bucket.put("people.json", rows("y" * 8_000)),
        lambda bucket: bucket.remove("people.json"),
    ],
    ids=["replaced", "removed"],
)
def test_an_object_that_changes_while_it_is_read_is_noticed(bucket, change):
    bucket.put("people.json", rows())
    with opened(bucket.url("people.json")) as file:
        found = blocks(file)
        next(found)
        change(bucket)

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


SMALL, IN_PARTS = b"{}\n", b'{"x":1}\n' * (70 * 2**20 // 8)
"""The content of a file of outcomes that is sent in one request, and of one that is not."""


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize("content", [SMALL, IN_PARTS], ids=["small", "in parts"])
def test_an_object_of_outcomes_is_written_once_and_as_a_whole(bucket, content):
    address = bucket.url("outcomes/one.ndjson")

    put(address, lambda stream: stream.write(content))
    put(address, lambda stream: stream.write(b"other\n"))

    assert bucket.contents() == {"outcomes/one.ndjson": content}
    assert isinstance(bucket, S3Bucket) or bucket.parts == {}


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
