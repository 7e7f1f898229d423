"""A whole cluster on one machine, for the quickstart and the tests."""
