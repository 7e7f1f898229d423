"""libvirt, and nothing else calls it."""
