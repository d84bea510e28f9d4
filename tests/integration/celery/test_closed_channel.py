"""Ending a worker whose connection to the broker was lost in between."""

from celery import Celery


def test_a_channel_that_was_closed_gives_nothing_back_a_second_time(app: Celery) -> None:
    with app.connection() as connection:
        channel = connection.channel()
        unacknowledged = channel.qos
        channel.close()

        unacknowledged.restore_unacked_once()  # as the interpreter does at its end
