"""Pools, disks, images and cloud-init media on the host's file systems.

Users name pools and images, never paths; every path here is built from a pool's configured directory, a UID and a name
that the models have checked, and no symbolic link is followed inside a pool.
"""
