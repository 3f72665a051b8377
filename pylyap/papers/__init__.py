"""Published studies carried out with pylyap, one module or package each."""
