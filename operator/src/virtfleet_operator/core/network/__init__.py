"""The network of the fleet, decided: who has which address, and what OVN's northbound database shall hold."""
