"""One reconcile function per kind: load, ask the core, write."""
