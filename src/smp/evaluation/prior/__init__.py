"""Evaluation of a prior."""
