"""From a machine to libvirt domain XML. Pure: every path and fact of the host comes in as data."""
