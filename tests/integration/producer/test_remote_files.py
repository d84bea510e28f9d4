"""Files in a bucket, read as those of this machine."""

import os
import subprocess
import sys

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from segrelay.ops.outcomes import put as put_outcomes
from segrelay.producer.sources.blocks import blocks_of
from segrelay.producer.sources.opening import look_at_file, opened
from segrelay.producer.sources.tables import Columns
from segrelay.producer.sync.sources import FileSource
from segrelay.worker.errors import ScanExpired, UsageWrong
from tests.s3 import BUCKET, s3_bucket


@pytest.fixture
def s3(monkeypatch):
    with s3_bucket(monkeypatch) as client:
        yield client


def rows(count):
    return b"".join(orjson.dumps({"email": f"p{n}@example.com"}) + b"\n" for n in range(count))


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


def test_parquet_is_read_from_a_bucket(s3, tmp_path):
    table = pa.table({"email": [f"p{n}@example.com" for n in range(100)]})
    parquet.write_table(table, tmp_path / "people.parquet")

    url = put(s3, "people.parquet", (tmp_path / "people.parquet").read_bytes())

    assert len(emails(url)) == 100


@pytest.mark.usefixtures("s3")
def test_a_url_with_a_password_is_refused_and_not_shown():
    with (
        pytest.raises(UsageWrong, match="a URL with a password") as refused,
        opened(f"s3://id:secret@{BUCKET}/none.json"),
    ):
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
    changed_ns = look_at_file(f"s3://{BUCKET}/daily/a.csv").changed_ns
    with FileSource(pattern, Columns(), now=lambda: changed_ns / 1e9 + 60) as source:
        page = source.page("")

        assert [row["email"] for row in page.rows] == ["ann@example.com"]
        source.refuse_change(page.origin)
        first = page.origin
        put(s3, "daily/a.csv", b"email\nbob@example.com\n")
        source.refuse_change(first)  # what was read was one whole version
    with FileSource(pattern, Columns()) as source, pytest.raises(ScanExpired):
        source.page(first)


def test_a_file_on_a_web_server_is_to_be_downloaded_first():
    with pytest.raises(UsageWrong, match="download it first"), opened("https://example.com/p.csv"):
        pass


def test_outcomes_are_written_into_buckets_and_folders_only():
    with pytest.raises(UsageWrong, match="can't be written to"):
        put_outcomes("https://example.com/outcomes", lambda stream: stream.write(b"x"))
