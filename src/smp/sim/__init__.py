"""Physics engines of mjlab's environments."""

from smp.sim.engine import Engine as Engine
from smp.sim.engine import make_env as make_env
from smp.sim.engine import use_engine as use_engine
from smp.sim.native import NativeSimulation as NativeSimulation
