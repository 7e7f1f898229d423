"""What can go wrong with the northbound database."""


class OvnError(Exception):
    """Something is wrong with the northbound database; the message says what."""


class UnavailableError(OvnError):
    """It does not answer, or another operator writes to it. Whether the last write arrived is not known."""


class RefusedError(OvnError):
    """It refuses what was written: some row is not as it demands."""
