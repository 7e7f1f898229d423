"""The HTTPS server that operators speak to."""
