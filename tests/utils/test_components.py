"""What follows from what a component says of itself."""

from __future__ import annotations

from smp.utils.components import direction, point, scalar


def test_sliders_reach_what_can_be_asked():
  speed = scalar("speed", "m/s", "", 0.5, 3.0, default=1.0, least=0.0)
  assert speed.sliders() == [("Speed (m/s)", 0.0, 3.0, 0.05, 1.0)]
  # A place in all directions; further where it stands further out already.
  x, y = point("goal", "", 1.0, 10.0).sliders((12.0, -3.0))
  assert (x.label, x.low, x.high, x.initial) == ("Goal x (m)", -10.0, 12.0, 12.0)
  assert (y.label, y.low, y.high, y.initial) == ("Goal y (m)", -10.0, 10.0, -3.0)
  assert direction("facing", "").sliders() == [
    ("Facing (deg)", -180.0, 180.0, 1.0, 0.0)
  ]
  assert direction("along", "", fixed=90.0).sliders() == []


def test_left_and_right_change_places_in_the_mirror():
  assert direction("facing", "").mirror_sign == (1.0, -1.0)
  assert point("goal", "", 1.0, 2.0).mirror_sign == (1.0, -1.0)
  assert scalar("speed", "m/s", "", 0.0, 1.0).mirror_sign == (1.0,)
