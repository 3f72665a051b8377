"""Weight dynamics of learning networks."""
