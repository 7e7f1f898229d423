"""The node daemon, one per hypervisor: the only writer to libvirt."""
