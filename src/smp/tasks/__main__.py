"""Print each task's id and the folder of its runs: ``python -m smp.tasks``."""

from smp.tasks.registry import all_tasks

for _spec in all_tasks():
  print(_spec.id, _spec.experiment)
