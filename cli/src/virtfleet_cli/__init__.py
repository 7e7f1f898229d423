"""The kubectl plugin: kubectl vm …"""
