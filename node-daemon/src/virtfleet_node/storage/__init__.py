"""Pools, disks, images and cloud-init media on the host's file systems."""
