"""What a policy can do: fixed protocols, figures with intervals, and a report."""
