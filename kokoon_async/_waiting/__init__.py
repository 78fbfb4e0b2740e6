"""How many waits share one client."""
