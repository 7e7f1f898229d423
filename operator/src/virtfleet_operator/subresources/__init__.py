"""The aggregated API subresources.virtfleet.io: consoles through the Kubernetes API."""
