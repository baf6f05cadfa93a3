"""What the scripts do after parsing."""
