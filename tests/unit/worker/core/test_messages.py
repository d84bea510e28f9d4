"""Messages without data."""

import pytest

from segrelay.worker.core.messages import normalise_message


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("invalid ann@example.com here", "invalid <email> here"),
        ("phone +1 (415) 555-2671 is wrong", "phone <number> is wrong"),
        ("user 4711 of 12", "user … of …"),
        ("sha256 of user4711, 3.5, users.3.email", "sha256 of user…, …, users.….email"),
        ('name "Ann O" is wrong', "name <value> is wrong"),
        ('field "event_name" is missing', 'field "event_name" is missing'),
        ("id 0123456789abcdef0123456789abcdef", "id <id>"),
        ("id 6f1e0f0e-7c1b-4a53-9d0a-0f3f5b6c7d8e", "id <id>"),
        ("<html><b>400</b>\n\n  Bad</html>", "… Bad"),
        ("x" * 500, "x" * 200),
        ("", ""),
        ("enter.jsonnet:12: no such field: x", "enter.jsonnet:12: no such field: x"),
        ("lib/a-b.libsonnet:7: got 'Ann'", "lib/a-b.libsonnet:7: got <value>"),
        ("a\x1b[31mred\x07 \u202eline\x9b2J", "a […mred line …J"),
    ],
)
def test_a_message_is_shown_without_what_differs_from_person_to_person(
    text: str, normalised: str
) -> None:
    assert normalise_message(text) == normalised
