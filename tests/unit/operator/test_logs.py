"""What the operator's log says of others' mistakes, and of its own."""

import logging

import pytest

from virtfleet_operator.logs import lower_refusals


@pytest.mark.parametrize(
    ("name", "text", "level"),
    [
        ("kopf.objects", "Webhook 'virtualmachines-write' failed permanently: spec.cpu: is wrong", "INFO"),
        ("kopf.objects", "Handler 'cache' failed permanently: KeyError", "ERROR"),
        ("kopf.objects", "Webhook 'virtualmachines-write' failed with an exception. Will retry.", "ERROR"),
        ("virtfleet_operator", "Webhook 'x' failed permanently: y", "ERROR"),
    ],
)
def test_a_refused_manifest_is_no_error_of_the_operator(name: str, text: str, level: str) -> None:
    record = logging.LogRecord(name, logging.ERROR, __file__, 1, text, None, None)
    assert lower_refusals(record)
    assert record.levelname == level
