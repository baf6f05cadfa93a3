"""End effectors of many environments in C, for `Kinematics.ee_positions` on a CPU.

As tensor operations the walk down the robot's tree is some three hundred small calls,
which cost a CPU more than the arithmetic in them. Here it is one loop over poses.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from smp.utils.native_code import NativeKernel

_MAX_BODIES = 64

# Each body but the root has a parent, an offset and a rotation in the frame of the
# parent, and a hinge. Parents come before their children, so one pass over the bodies
# suffices. Quaternions are wxyz.
_SNIPPET = f"""
const Int robots = job[0], bodies = job[1], ends = job[2];
const Int *parent = (const Int*)job[3], *end = (const Int*)job[4];
const float *offset = (const float*)job[5], *turned = (const float*)job[6];
const float* axis = (const float*)job[7];
const float *root_pos = (const float*)job[8], *root_quat = (const float*)job[9];
const float* joint = (const float*)job[10];
float* out = (float*)job[11];
float pos[{_MAX_BODIES}][3], quat[{_MAX_BODIES}][4];
for (Int n = 0; n < robots; ++n) {{
  for (int i = 0; i < 3; ++i) pos[0][i] = root_pos[3 * n + i];
  for (int i = 0; i < 4; ++i) quat[0][i] = root_quat[4 * n + i];
  for (Int b = 1; b < bodies; ++b) {{
    const float *q = quat[parent[b]], *v = offset + 3 * b, *c = turned + 4 * b;
    // Rotate the offset v by the parent's q = (w, u): v + w t + u x t, t = 2 u x v.
    const float tx = 2.0f * (q[2] * v[2] - q[3] * v[1]);
    const float ty = 2.0f * (q[3] * v[0] - q[1] * v[2]);
    const float tz = 2.0f * (q[1] * v[1] - q[2] * v[0]);
    const float* p = pos[parent[b]];
    pos[b][0] = p[0] + v[0] + q[0] * tx + q[2] * tz - q[3] * ty;
    pos[b][1] = p[1] + v[1] + q[0] * ty + q[3] * tx - q[1] * tz;
    pos[b][2] = p[2] + v[2] + q[0] * tz + q[1] * ty - q[2] * tx;
    // The product h = c * (hinge's rotation), in the frame of the parent; then q * h.
    const float half = 0.5f * joint[(bodies - 1) * n + b - 1];
    const float s = wp::sin(half), w = wp::cos(half);
    const float x = s * axis[3 * b], y = s * axis[3 * b + 1], z = s * axis[3 * b + 2];
    const float hw = c[0] * w - c[1] * x - c[2] * y - c[3] * z;
    const float hx = c[0] * x + c[1] * w + c[2] * z - c[3] * y;
    const float hy = c[0] * y - c[1] * z + c[2] * w + c[3] * x;
    const float hz = c[0] * z + c[1] * y - c[2] * x + c[3] * w;
    quat[b][0] = q[0] * hw - q[1] * hx - q[2] * hy - q[3] * hz;
    quat[b][1] = q[0] * hx + q[1] * hw + q[2] * hz - q[3] * hy;
    quat[b][2] = q[0] * hy - q[1] * hz + q[2] * hw + q[3] * hx;
    quat[b][3] = q[0] * hz + q[1] * hy - q[2] * hx + q[3] * hw;
  }}
  for (Int e = 0; e < ends; ++e)
    for (int i = 0; i < 3; ++i) out[3 * (ends * n + e) + i] = pos[end[e]][i];
}}
"""


KERNEL = NativeKernel("forward kinematics", _SNIPPET)


class NativeForwardKinematics:
  """`Kinematics.ee_positions` for float32 on the CPU.

  Args:
    parents: (B,) index of each body's parent, in the model's order; -1 for the root.
    ends: Indices of the end effectors among the bodies.
    body_pos: (B - 1, 3), m, each body but the root in the frame of its parent.
    body_quat: (B - 1, 4), wxyz, likewise.
    axes: (B - 1, 3) of their hinges.
  """

  def __init__(
    self,
    parents: np.ndarray,
    ends: list[int],
    body_pos: Tensor,
    body_quat: Tensor,
    axes: Tensor,
  ) -> None:
    bodies = len(parents)
    if bodies > _MAX_BODIES:
      raise ValueError(f"{bodies} bodies, at most {_MAX_BODIES}")
    self._bodies, self._ends = bodies, len(ends)

    def with_root(values: Tensor) -> np.ndarray:
      """Return values of all bodies as float32, zero for the root."""
      rows = torch.cat((torch.zeros(1, values.shape[1]), values.cpu()))
      return np.ascontiguousarray(rows.numpy(), np.float32)

    self._constants = [
      np.asarray(parents, np.int64),
      np.asarray(ends, np.int64),
      with_root(body_pos),
      with_root(body_quat),
      with_root(axes),
    ]
    addresses = [array.ctypes.data for array in self._constants]
    self._job = np.array([0, bodies, len(ends), *addresses, 0, 0, 0, 0], np.int64)
    self._launch = KERNEL.record(self._job)

  def ee_positions(self, root_pos: Tensor, root_quat: Tensor, joints: Tensor) -> Tensor:
    """Return the end effectors (..., E, 3), m.

    Args:
      root_pos: (..., 3), m.
      root_quat: (..., 4), wxyz.
      joints: (..., J), rad; all three have the same leading shape.

    Raises:
      ValueError: a wrong shape, type or device.
    """
    shape = joints.shape[:-1]
    out = torch.empty(*shape, self._ends, 3)
    given = [part.contiguous() for part in (root_pos, root_quat, joints)]
    for part, width in zip(given, (3, 4, self._bodies - 1), strict=True):
      if part.shape != (*shape, width) or part.dtype != torch.float32 or part.is_cuda:
        raise ValueError(
          f"{part.dtype} {tuple(part.shape)}, expected {(*shape, width)}"
        )
    self._job[0] = shape.numel()
    self._job[8:12] = [part.data_ptr() for part in (*given, out)]
    self._launch.launch()
    return out
