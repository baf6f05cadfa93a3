"""Rotations in batches. Quaternions are wxyz and of unit length.

Everything is plain tensor arithmetic: no branches on values, no waiting for the device.
Formulas: Dam, Koch and Lillholm, "Quaternions, Interpolation and Animation" (1998);
Zhou et al., "On the Continuity of Rotation Representations" (2019) for the six numbers.
"""

from __future__ import annotations

from typing import Literal

import torch

HeadingKind = Literal["twist", "yaw"]
_EPS = 1e-12


def quat_mul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
  """Return the product a b (..., 4): the rotation b followed by the rotation a."""
  aw, ax, ay, az = a.unbind(-1)
  bw, bx, by, bz = b.unbind(-1)
  return torch.stack(
    (
      aw * bw - ax * bx - ay * by - az * bz,
      aw * bx + ax * bw + ay * bz - az * by,
      aw * by - ax * bz + ay * bw + az * bx,
      aw * bz + ax * by - ay * bx + az * bw,
    ),
    dim=-1,
  )


def quat_conj(quat: torch.Tensor) -> torch.Tensor:
  """Return the inverse rotations (..., 4)."""
  return torch.cat((quat[..., :1], -quat[..., 1:]), dim=-1)


def quat_normalize(quat: torch.Tensor) -> torch.Tensor:
  """Return the quaternions (..., 4) scaled to unit length."""
  return quat / quat.norm(dim=-1, keepdim=True).clamp(min=_EPS)


def quat_rotate(quat: torch.Tensor, vec: torch.Tensor) -> torch.Tensor:
  """Return vectors (..., 3) rotated by quaternions (..., 4)."""
  w, xyz = quat[..., :1], quat[..., 1:]
  t = 2.0 * torch.linalg.cross(xyz, vec)
  return vec + w * t + torch.linalg.cross(xyz, t)


def quat_to_matrix(quat: torch.Tensor) -> torch.Tensor:
  """Return rotation matrices (..., 3, 3)."""
  w, x, y, z = quat.unbind(-1)
  rows = (
    1 - 2 * (y * y + z * z),
    2 * (x * y - w * z),
    2 * (x * z + w * y),
    2 * (x * y + w * z),
    1 - 2 * (x * x + z * z),
    2 * (y * z - w * x),
    2 * (x * z - w * y),
    2 * (y * z + w * x),
    1 - 2 * (x * x + y * y),
  )
  return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quat_from_matrix(matrix: torch.Tensor) -> torch.Tensor:
  """Return the quaternions (..., 4) of rotation matrices, with w >= 0.

  This is Shepperd's method without branches: it computes a candidate from each of the
  four components, and takes the best conditioned one.
  """
  m = matrix.flatten(-2).unbind(-1)
  m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
  # 4 w^2, 4 x^2, 4 y^2 and 4 z^2. Row i of the candidates is the quaternion times four
  # times its component i, so the largest component divides best.
  squares = torch.stack(
    (
      1 + m00 + m11 + m22,
      1 + m00 - m11 - m22,
      1 - m00 + m11 - m22,
      1 - m00 - m11 + m22,
    ),
    dim=-1,
  )
  candidates = torch.stack(
    (
      torch.stack((squares[..., 0], m21 - m12, m02 - m20, m10 - m01), dim=-1),
      torch.stack((m21 - m12, squares[..., 1], m01 + m10, m02 + m20), dim=-1),
      torch.stack((m02 - m20, m01 + m10, squares[..., 2], m12 + m21), dim=-1),
      torch.stack((m10 - m01, m02 + m20, m12 + m21, squares[..., 3]), dim=-1),
    ),
    dim=-2,
  )
  best = squares.argmax(dim=-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
  quat = quat_normalize(candidates.gather(-2, best).squeeze(-2))
  return torch.where(quat[..., :1] < 0, -quat, quat)


def quat_log(quat: torch.Tensor) -> torch.Tensor:
  """Return rotation vectors (..., 3), rad: axis times angle, the angle in [0, pi].

  q and -q give the same vector. Near the identity the ratio angle / sin(angle / 2)
  is replaced by its limit, so that very small angles keep their precision.
  """
  w, xyz = quat[..., :1], quat[..., 1:]
  sign = torch.where(w < 0, -torch.ones_like(w), torch.ones_like(w))
  w, xyz = w * sign, xyz * sign
  sin_half = xyz.norm(dim=-1, keepdim=True)
  angle = 2.0 * torch.atan2(sin_half, w)
  small = sin_half < 1e-7
  ratio = angle / torch.where(small, torch.ones_like(sin_half), sin_half)
  return xyz * torch.where(small, torch.full_like(ratio, 2.0), ratio)


def rot6d_from_quat(quat: torch.Tensor) -> torch.Tensor:
  """Return tangent and normal (..., 6), the first and third column of the matrix."""
  matrix = quat_to_matrix(quat)
  return torch.cat((matrix[..., 0], matrix[..., 2]), dim=-1)


def quat_from_rot6d(six: torch.Tensor) -> torch.Tensor:
  """Return quaternions (..., 4) from tangent and normal (..., 6).

  The numbers may come from a network: the tangent is scaled to unit length and the
  normal is made orthogonal to it (Gram-Schmidt).
  """
  x = torch.nn.functional.normalize(six[..., :3], dim=-1)
  z = six[..., 3:] - (six[..., 3:] * x).sum(-1, keepdim=True) * x
  z = torch.nn.functional.normalize(z, dim=-1)
  y = torch.linalg.cross(z, x)
  return quat_from_matrix(torch.stack((x, y, z), dim=-1))


def rotate_z(cos: torch.Tensor, sin: torch.Tensor, vec: torch.Tensor) -> torch.Tensor:
  """Return vectors (..., 3) rotated about z by the angle of (cos, sin), both (...).

  The inverse rotation is that of (cos, -sin).
  """
  x, y, z = vec.unbind(-1)
  return torch.stack((cos * x - sin * y, sin * x + cos * y, z), dim=-1)


def heading(
  quat: torch.Tensor, kind: HeadingKind = "twist"
) -> tuple[torch.Tensor, torch.Tensor]:
  """Return cosine and sine (...) of the direction that a body faces in the xy plane.

  ``twist``: the rotation about world z in the decomposition "tilt after turn" (swing
  and twist). It equals the yaw angle of an upright body, and is continuous for every
  pose except exactly upside down, where the result is zero: lying supine, prone or on a
  side all have a heading. Rotating the world about z adds to it, and mirroring negates
  it.

  ``yaw``: the direction of the body's x axis seen from above, which the published
  priors used; it is undefined when that axis points up or down, as it does when lying.
  """
  w, x, y, z = quat.unbind(-1)
  if kind == "twist":
    cos, sin = w * w - z * z, 2.0 * w * z
  else:
    cos, sin = 1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z)
  length = torch.sqrt(cos * cos + sin * sin)
  lost = length < 1e-8
  scale = 1.0 / torch.where(lost, torch.ones_like(length), length)
  return torch.where(lost, torch.ones_like(cos), cos * scale), sin * scale * ~lost
