"""Where machines go: what one asks, what a node offers, what keeps them apart, and which node is best. All pure."""
