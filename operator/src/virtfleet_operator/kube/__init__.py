"""Reading and writing Kubernetes: cache, patches, events, lease."""
