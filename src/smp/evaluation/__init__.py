"""Evaluation of policies and priors: metrics with intervals, and reports."""
