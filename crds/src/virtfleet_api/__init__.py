"""The API of virtfleet: kinds, their parsing, and the contracts between its processes. No I/O."""
