"""Logs for cluster operators: one line an event, its facts as key=value after the sentence."""

import logging
import sys
from typing import Final

_KNOWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """Writes `extra` behind the message; values are quoted, so that nothing a guest says can forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's own name
        """Return the line."""
        facts = (f"{key}={value!r}" for key, value in vars(record).items() if key not in _KNOWN)
        return " ".join((super().formatMessage(record), *facts))


def configure_logging(level: str = "INFO") -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
