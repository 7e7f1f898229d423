"""The kubectl plugin: `kubectl vm …`. It acts with the user's own rights and knows nothing but the Kubernetes API."""
