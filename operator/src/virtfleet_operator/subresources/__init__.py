"""The aggregated API subresources.virtfleet.io: consoles and uploads through the Kubernetes API.

Whoever speaks to it is the API server, proven by its front-proxy certificate; whom it speaks for is asked again for the
right to it, here, before anything is read. It must not write to Kubernetes, nor to a node but
what a user sends.
"""
