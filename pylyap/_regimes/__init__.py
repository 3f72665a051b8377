"""Parts of `pylyap.regimes`."""
