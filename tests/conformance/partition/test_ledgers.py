"""How long the ledgers of a partition last."""

from tests.conformance.partition.conftest import RETENTION_SECONDS, Bench, note_of
from tests.conformance.partition.steps import held_with, settle
from worker.batch.partition import LedgerText, Settled, Settlement


def test_ledgers_are_read_with_and_without_the_lease_and_lapse(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    settle(
        bench,
        Settlement(
            [Settled(ada, tells=True)], ledgers={ada.header.digest: LedgerText(b"\x01\x00\xff")}
        ),
    )
    digests = [bob.header.digest, ada.header.digest]

    assert bench.run(bench.one.ledgers(digests)) == [None, b"\x01\x00\xff"]
    assert bench.run(bench.two.peek(digests)) == [None, b"\x01\x00\xff"]
    lives_ms = bench.world.ledger_lives_ms(ada.header.digest)
    assert 0 < lives_ms <= 1_000 * RETENTION_SECONDS


def test_every_writer_of_a_ledger_gives_it_its_retention(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    bench.run(bench.one.note(note_of("n1", ada)))
    tried = Settlement(
        note_id="n1", open_seconds=30, ledgers={ada.header.digest: LedgerText(b"tried")}
    )
    settle(bench, tried)
    bench.run(bench.one.note(note_of("n2", bob)))
    bench.run(bench.one.open_notes(["n2"], 30, {bob.header.digest: LedgerText(b"tried")}))

    for delivery in (ada, bob):
        lives_ms = bench.world.ledger_lives_ms(delivery.header.digest)
        assert 0 < lives_ms <= 1_000 * RETENTION_SECONDS


def test_no_writer_lets_the_ledger_of_a_member_lapse(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    bench.run(bench.one.note(note_of("n1", ada)))
    inside = LedgerText(b"in", lasts=True)
    settle(bench, Settlement(note_id="n1", open_seconds=30, ledgers={ada.header.digest: inside}))
    bench.run(bench.one.note(note_of("n2", bob)))
    bench.run(bench.one.open_notes(["n2"], 30, {bob.header.digest: inside}))

    for delivery in (ada, bob):
        assert bench.world.ledger_lives_ms(delivery.header.digest) < 0
    assert bench.run(bench.two.peek([ada.header.digest, bob.header.digest])) == [b"in", b"in"]


def test_a_ledger_that_would_have_lapsed_lasts_once_its_person_is_in_again(bench: Bench) -> None:
    ada, later = held_with(bench, "ada", "ada")
    digest = ada.header.digest
    settle(bench, Settlement([Settled(ada, tells=True)], ledgers={digest: LedgerText(b"out")}))
    assert bench.world.ledger_lives_ms(digest) > 0

    inside = LedgerText(b"in", lasts=True)
    settle(bench, Settlement([Settled(later, tells=True)], ledgers={digest: inside}))

    assert bench.world.ledger_lives_ms(digest) < 0
