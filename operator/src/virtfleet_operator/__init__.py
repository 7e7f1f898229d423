"""The central operator: the only writer to Kubernetes."""
