"""mjlab terms: the motion prior, commands, rewards, terminations and curricula.

mjlab is imported before anything here is defined. It loads the tasks of all installed
packages while it is imported (the ``mjlab.tasks`` entry points), and those import the
modules below; in this order that works whichever package a program imports first.
"""

import mjlab as mjlab

from smp.mdp.commands import (
  ComponentCommand,
  ComponentCommandCfg,
  LocationCommand,
  LocationCommandCfg,
  SpeedCommand,
  SpeedCommandCfg,
  SteeringCommand,
  SteeringCommandCfg,
  TravelCommand,
  TravelCommandCfg,
)
from smp.mdp.curriculums import (
  PushStrength,
  RangeTop,
  Success,
  add_curriculum,
  curriculum_state,
  load_curriculum_state,
)
from smp.mdp.metrics import facing_error, goal_distance, velocity_error
from smp.mdp.rewards import (
  TaskReward,
  face_direction,
  reach_goal,
  smp_reward,
  track_velocity,
  track_velocity_and_yaw_rate,
)
from smp.mdp.smp_term import SmpTerm, SmpTermCfg
from smp.mdp.terminations import root_too_low

__all__ = [
  "ComponentCommand",
  "ComponentCommandCfg",
  "RangeTop",
  "SmpTerm",
  "SmpTermCfg",
  "TaskReward",
  "LocationCommand",
  "LocationCommandCfg",
  "SpeedCommand",
  "SpeedCommandCfg",
  "SteeringCommand",
  "SteeringCommandCfg",
  "PushStrength",
  "Success",
  "TravelCommand",
  "TravelCommandCfg",
  "add_curriculum",
  "curriculum_state",
  "face_direction",
  "facing_error",
  "goal_distance",
  "load_curriculum_state",
  "smp_reward",
  "reach_goal",
  "root_too_low",
  "track_velocity",
  "track_velocity_and_yaw_rate",
  "velocity_error",
]
