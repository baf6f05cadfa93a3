"""The tasks, registered with mjlab when this package is imported.

mjlab imports it through the ``mjlab.tasks`` entry point, so that its own ``train``,
``play`` and ``list-envs`` know the tasks too. It is imported here first, so that the
order in which a program imports the two makes no difference (see `smp.mdp`).
"""

import mjlab as mjlab
from mjlab.tasks.registry import register_mjlab_task

from smp.rl.learners import runner_for
from smp.rl.ppo import ppo_cfg
from smp.tasks.forward import forward_env_cfg
from smp.tasks.getup import getup_env_cfg
from smp.tasks.location import location_env_cfg
from smp.tasks.steering import steering_env_cfg

for _name, _make in (
  ("Forward", forward_env_cfg),
  ("Steering", steering_env_cfg),
  ("Location", location_env_cfg),
  ("Getup", getup_env_cfg),
):
  register_mjlab_task(
    task_id=f"Smp-{_name}-G1",
    env_cfg=_make(),
    play_env_cfg=_make(play=True),
    rl_cfg=ppo_cfg(f"smp_{_name.lower()}_g1"),
    runner_cls=runner_for(f"Smp-{_name}-G1"),
  )
