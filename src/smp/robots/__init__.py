"""The robots that motion and tasks are about."""
