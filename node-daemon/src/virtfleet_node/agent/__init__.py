"""The daemon's loop: keys in, plan, execute, report."""
