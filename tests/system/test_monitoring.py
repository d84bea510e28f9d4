"""A real Prometheus reads the metrics with our rules: an alert fires, and ends."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.journeys.play import SHORT, Rig, start_worker, stop_worker
from tests.ports import own_port
from tests.waiting import until

FOLDER = Path(__file__).parents[2] / "ops/prometheus"
TOKEN = "a-token-of-nobody"
WITHIN_SECONDS = 15


@contextmanager
def prometheus(folder: Path, target: str, token: str) -> Iterator[str]:
    """Run Prometheus with our configuration, scraping every second; yields its URL."""
    folder.mkdir()
    (folder / "token").write_text(token)
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(FOLDER / "rules.yml")]
    [scraped] = configuration["scrape_configs"]
    scraped["authorization"]["credentials_file"] = str(folder / "token")
    scraped["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = own_port()
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            [  # noqa: S607 - the package's
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        yield f"http://127.0.0.1:{port}"


def asked(url: str, query: str) -> list[dict[str, Any]]:
    try:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query})
    except httpx.TransportError:
        return []
    found: list[dict[str, Any]] = answer.json()["data"]["result"] if answer.is_success else []
    return found


def firing(url: str) -> set[str]:
    found = asked(url, 'ALERTS{alertstate="firing"}')
    return {one["metric"]["alertname"] for one in found}


def test_an_alert_fires_while_no_worker_runs_and_ends_afterwards(tmp_path: Path) -> None:
    port = own_port()
    text = f'[metrics]\nlisten = "127.0.0.1:{port}"\ntoken = "{TOKEN}"\n'
    with Rig(tmp_path, delivery_lines=SHORT, more=text) as rig:
        worker = start_worker(rig)
        rig.start_beside("metrics")
        with prometheus(tmp_path / "prometheus", f"127.0.0.1:{port}", TOKEN) as url:
            until(lambda: asked(url, 'up{job="segrelay"} == 1'), 60)
            until(lambda: asked(url, "segrelay_workers == 1"), 60)
            assert firing(url) <= {"SegrelayMetricsMissing"}

            stop_worker(worker)
            stopped = time.monotonic()
            until(lambda: "SegrelayNoWorker" in firing(url), 30)
            assert time.monotonic() - stopped < 2 * WITHIN_SECONDS

            start_worker(rig)
            until(lambda: not firing(url), 120)
