"""Structured logs: one JSON object a line, with what the caller put into `extra`."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Attributes that every record has; the others came by `extra`."""

_KOPF_INTERNAL: Final = frozenset({"k8s_ref", "k8s_skip", "settings", "k8s_obj"})
"""kopf's own extras: references for its events, noise in a log."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD and k not in _KOPF_INTERNAL}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **extra,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def lower_refusals(record: logging.LogRecord) -> bool:
    """Lower kopf's error about a refused manifest to what it is: trouble of its author's, not of the operator's."""
    text = record.getMessage() if record.name == "kopf.objects" else ""
    if text.startswith("Webhook ") and " failed permanently: " in text:
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True


def configure_logging(level: int) -> None:
    """Send all logs to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(lower_refusals)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # kopf says a line for each object and event at INFO; what it has to say of trouble is a warning.
    logging.getLogger("kopf").setLevel(max(level, logging.WARNING))
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
