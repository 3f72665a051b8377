"""Parts of `pylyap.prediction`."""
