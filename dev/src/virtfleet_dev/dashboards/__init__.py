"""Dashboards for Grafana, from what each panel shows: `python -m virtfleet_dev.dashboards write|check`."""
