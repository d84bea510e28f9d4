"""The documents: what they link to and name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("worker", "producer", "ops", "templates", "tests")
ROOMS = ("worker", "producer", "ops", "jsonnet", "javascript", "sandbox", "tools")
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / folder / "README.md" for folder in (*FOLDERS, "jsonnet", "javascript")),
    *sorted((ROOT / "docs").glob("*.md")),
]
_CODE = re.compile(r"```.*?```", re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]*))?\)")
_PATH = re.compile(
    r"`((?:worker|producer|ops|jsonnet|javascript|sandbox|tools|templates|tests|docs)/[\w./*-]+)`"
)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def prose(document: Path) -> str:
    return _CODE.sub("", document.read_text())


def anchors(document: Path) -> set[str]:
    """Return what GitHub lets a link point to within a document."""
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in _HEADING.findall(prose(document)))
    return {title.strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    links = [
        (path, anchor, (document.parent / path) if path else document)
        for path, anchor in _LINK.findall(prose(document))
    ]

    assert [path for path, _, target in links if not target.exists()] == []
    assert [
        f"{path}#{anchor}" for path, anchor, target in links
        if anchor and anchor not in anchors(target)
    ] == []  # fmt: skip


LENGTHS = {"README.md": 950, "CHANGELOG.md": 800} | {f"{one}/README.md": 600 for one in FOLDERS}


@pytest.mark.parametrize("document", LENGTHS)
def test_a_page_that_everybody_reads_is_short(document: str) -> None:
    assert len((ROOT / document).read_text().split()) <= LENGTHS[document]


def test_the_readme_tells_the_speed_that_the_benchmarks_gave() -> None:
    readme, results = (
        (ROOT / "README.md").read_text(),
        (ROOT / "tools/bench/results.md").read_text(),
    )

    told = re.findall(r"\[([\d,]+) events a second\]\(tools/bench/results\.md\)", readme)

    assert told
    assert [figure for figure in told if f"{figure} events/s" not in results] == []


def test_what_the_capacity_is_reckoned_with_is_what_the_benchmarks_gave() -> None:
    results = (ROOT / "tools/bench/results.md").read_text()
    reckoned = (ROOT / "docs/capacity.md").read_text()

    for in_results, said in (
        ("7,800 events/s", "At 7,800 events a second"),
        ("4.7 requests for 1,000 events", "benchmarks had 213 users a request"),
    ):
        assert in_results in results
        assert said in reckoned


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_a_document_names_is_there(document: Path) -> None:
    named = [path for path in _PATH.findall(document.read_text()) if "NAME" not in path]

    assert [path for path in named if not list(ROOT.glob(path.rstrip("/")))] == []
