"""How one call reaches the server."""
