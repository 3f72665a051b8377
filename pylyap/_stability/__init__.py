"""Maps of two settings: their axes, the runs of their pixels, and the score of a run."""
