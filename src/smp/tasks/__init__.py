"""The tasks, registered with mjlab when this package is imported.

mjlab imports it through the ``mjlab.tasks`` entry point, so that its own ``train``,
``play`` and ``list-envs`` know the tasks too. mjlab is imported here first, so that the
order in which a program imports the two makes no difference (see `smp.mdp`).
"""

import mjlab as mjlab

from smp.tasks import forward, getup, location, steering, velocity
from smp.tasks.registry import register_task

for _module in (forward, steering, location, getup, velocity):
  register_task(_module.SPEC)
