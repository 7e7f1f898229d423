"""Pure decisions of the daemon: desired, observed, plan. No I/O, no clock."""
