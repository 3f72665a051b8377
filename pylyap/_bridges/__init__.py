"""Models of other frameworks as maps of the state."""
