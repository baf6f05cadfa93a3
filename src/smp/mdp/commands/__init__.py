"""What the policy is asked to do: one module per command."""

from smp.mdp.commands.component import ComponentCommand, ComponentCommandCfg, Growth
from smp.mdp.commands.location import LocationCommand, LocationCommandCfg
from smp.mdp.commands.speed import SpeedCommand, SpeedCommandCfg
from smp.mdp.commands.steering import SteeringCommand, SteeringCommandCfg
from smp.mdp.commands.travel import TravelCommand, TravelCommandCfg

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
