<<<<<<< HEAD
"""Models of other frameworks as maps."""
=======
"""Models of other frameworks as maps of the state."""
>>>>>>> h-torch
