"""What every node reported last, in memory, and the clients that speak to the nodes."""
