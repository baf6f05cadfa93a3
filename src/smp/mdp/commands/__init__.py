"""Commands that a policy follows, one module per command."""

from smp.mdp.commands.component import (
  CLIMB,
  ComponentCommand,
  ComponentCommandCfg,
  Growth,
)
from smp.mdp.commands.location_command import LocationCommand, LocationCommandCfg
from smp.mdp.commands.moving_command import MovingCommand, MovingCommandCfg
from smp.mdp.commands.speed_command import SpeedCommand, SpeedCommandCfg
from smp.mdp.commands.steering_command import SteeringCommand, SteeringCommandCfg
from smp.mdp.commands.travel_command import TravelCommand, TravelCommandCfg
from smp.mdp.commands.velocity_command import VelocityCommand, VelocityCommandCfg

__all__ = [
  "CLIMB",
  "ComponentCommand",
  "ComponentCommandCfg",
  "Growth",
  "LocationCommand",
  "LocationCommandCfg",
  "MovingCommand",
  "MovingCommandCfg",
  "SpeedCommand",
  "SpeedCommandCfg",
  "SteeringCommand",
  "SteeringCommandCfg",
  "TravelCommand",
  "TravelCommandCfg",
  "VelocityCommand",
  "VelocityCommandCfg",
]
