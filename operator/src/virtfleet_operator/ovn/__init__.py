"""OVN's northbound database: the only place that talks to it."""
