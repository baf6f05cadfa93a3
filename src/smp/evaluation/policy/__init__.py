"""Evaluation of a policy on its task."""
