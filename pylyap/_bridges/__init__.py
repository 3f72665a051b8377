"""Models of other frameworks as maps."""
