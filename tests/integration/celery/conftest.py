"""A configuration, a view of the broker, and a producer's Celery app, on a real Valkey."""

import pytest
from celery import Celery

from segrelay.worker.contract.celery import broker_options
from segrelay.worker.contract.settings import load_settings
from tests.integration.celery.nodes import Broker, configure


@pytest.fixture
def configuration(tmp_path, redis_url):
    return configure(tmp_path, redis_url)


@pytest.fixture
def broker(redis_url):
    found = Broker(redis_url)
    yield found
    found.client.close()


@pytest.fixture
def app(configuration):
    made = Celery("producer", set_as_current=False)
    made.conf.update(broker_options(load_settings(configuration)))
    yield made
    made.close()
