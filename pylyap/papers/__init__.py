"""Reproductions of published studies, one package each."""
