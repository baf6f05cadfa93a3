"""Commands that a policy follows, one module per command."""

from smp.mdp.commands.component import ComponentCommand, ComponentCommandCfg, Growth
from smp.mdp.commands.location_command import LocationCommand, LocationCommandCfg
from smp.mdp.commands.speed_command import SpeedCommand, SpeedCommandCfg
from smp.mdp.commands.steering_command import SteeringCommand, SteeringCommandCfg
from smp.mdp.commands.travel_command import TravelCommand, TravelCommandCfg

__all__ = [
  "ComponentCommand",
  "ComponentCommandCfg",
  "Growth",
  "LocationCommand",
  "LocationCommandCfg",
  "SpeedCommand",
  "SpeedCommandCfg",
  "SteeringCommand",
  "SteeringCommandCfg",
  "TravelCommand",
  "TravelCommandCfg",
]
