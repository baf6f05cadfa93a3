"""The tasks, registered with mjlab when this package is imported.

mjlab imports it through the ``mjlab.tasks`` entry point, so that its own ``train``,
``play`` and ``list-envs`` know the tasks too. It is imported here first, so that the
order in which a program imports the two makes no difference (see `smp.mdp`).
"""

import mjlab as mjlab
from mjlab.tasks.registry import register_mjlab_task

from smp.tasks.forward import forward_env_cfg
from smp.tasks.ppo import ppo_cfg
from smp.tasks.runner import SmpRunner

register_mjlab_task(
  task_id="Smp-Forward-G1",
  env_cfg=forward_env_cfg(),
  play_env_cfg=forward_env_cfg(play=True),
  rl_cfg=ppo_cfg("smp_forward_g1"),
  runner_cls=SmpRunner,
)
