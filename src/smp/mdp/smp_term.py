"""The motion prior in the environment: motion window, style reward, initial states."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from mjlab.entity import Entity
from mjlab.managers import CommandTerm, CommandTermCfg

from smp.diffusion.labelled import window_labels
from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior
from smp.diffusion.sds import Precision
from smp.diffusion.styles import StyleCfg, find_parts, parse_style, split_names
from smp.errors import UserError
from smp.mdp import robot_state
from smp.mdp.commands.moving_command import MovingCommand, MovingCommandCfg
from smp.mdp.composition import (
  RewardForm,
  RewardMode,
  smp_share,
  task_share,
)
from smp.mdp.env_styles import EnvStyles, log_name
from smp.mdp.init_state_buffers import (
  DefaultPose,
  FallenStateBuffer,
  GsiBuffer,
  StyledGsiBuffer,
)
from smp.mdp.init_states import (
  InitStates,
  InitStateSampler,
  init_height_weights,
  init_motion_weights,
)
from smp.mdp.motion_window import MotionWindow
from smp.mdp.sds_normalizer import (
  ReferenceSdsNormalizer,
  SdsNormalizer,
  StyleNormalizers,
)
from smp.mdp.smp_reward import TIMESTEPS, SmpReward
from smp.mdp.style_reward import NoStyle, StyleReward
from smp.mdp.style_step import StyleStep
from smp.motion.features import FeatureSpec, g1_spec
from smp.paths import resolve_prior
from smp.robots import g1
from smp.utils.names import check_style

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv

SMP_TERM = "smp"
"""Name of the SMP term among the commands of every task of this project."""


@dataclass(kw_only=True)
class SmpTermCfg(CommandTermCfg):
  """Configuration of the prior, its share in the reward, and the initial states."""

  prior: str | None
  """Name of a shipped prior (``datasets/priors/NAME.safetensors``), or a path. None: no
  prior; the reward is the task's alone (``reward_mode`` ``task_only``), and episodes
  start in the robot's default pose."""

  style: str | None = None
  """Style of a prior that has several, for the reward and for the initial states. None:
  all its styles, without a label."""

  style_upper: str | None = None
  """Style of the upper body (waist, arms, torso), if another than ``style``."""

  style_lower: str | None = None
  """Style of the lower body (legs, root), if another than ``style``."""

  styles: str | None = None
  """Styles of which each environment draws one whenever an episode starts, as in
  walk,run,guarded/run (guarded above, run below). Its reward and its initial state are
  of that style, and actor and critic observe which it is. Not together with the three
  options above."""

  only_style: str | None = None
  """The one of ``styles`` that all environments have, for viewing and evaluation."""

  style_weight: float = 1.0
  """w of classifier-free guidance: 1 is the style itself at no cost, above 1 it is
  exaggerated; such weights, and two styles, take one evaluation more per label."""

  score_steps: int = 1
  """Steps of multi-step score matching: 1 is the SDS loss; more follow the prior from
  the noised window through timesteps that are 2 apart, and compare where that ends with
  the window. For styles that conflict. Each step takes an evaluation."""

  entity_name: str = "robot"

  timesteps: tuple[int, ...] = SCORED_TIMESTEPS
  """The K diffusion timesteps of the SDS loss."""

  precision: Precision = "auto"
  """Precision of the denoiser's products: ``float32``, ``tf32``, ``bfloat16``,
  ``float16``, or ``auto``: float16 on a GPU, float32 on a CPU."""

  compile_score: bool = False
  """Apply ``torch.compile`` to the denoiser (GPU only). Takes a minute at the start."""

  sds_scale: float = 6.0
  """w_s in r_smp = exp(-w_s * mean over K of error / μ)."""

  sds_normalizer: Literal["running", "reference"] = "running"
  """μ of each timestep. ``running``: mean SDS loss seen in training, as published.
  ``reference``: a multiple of the prior's reference error (`smp.diffusion.reference`),
  which its file states; the same in every run, from the first step on."""

  reward_mode: RewardMode = "product"
  """Composition of the reward from the task reward and r_smp. ``product``: task * r_smp
  (see ``min_smp_reward_fallen``); ``weighted_sum`` (the original's form):
  task_reward_weight * task + smp_reward_weight * r_smp; ``task_only``;
  ``prior_only``."""

  task_reward_weight: float = 0.5
  """Weight of the task reward in ``weighted_sum``."""

  smp_reward_weight: float = 0.5
  """Weight of r_smp in ``weighted_sum``."""

  freeze_after_samples: float = 5e7
  """Number of windows after which the running means are frozen. Like the two options
  below, this has no effect on ``reference``, which is fixed."""

  update_statistics: bool = True
  """Whether the running means are updated. Off in play and evaluation."""

  sync_interval: int = 24
  """Steps between two exchanges of the running means, where several GPUs train."""

  gsi_buffer_size: int = 4096
  """Generated windows in the GSI buffer."""

  filter_init_states: bool = True
  """Whether generated windows are lifted out of the floor, and drawn again where their
  last frame is in self-collision or outside the joint limits."""

  max_init_head_height: float | None = None
  """Maximum head height (m) at the end of a generated window that serves as initial
  state. None: no limit. For tasks that begin on the ground."""

  init_speed_bandwidth: float | None = None
  """Standard deviation (m/s) of a Gaussian preference for generated windows whose speed
  is near the first commanded speed of the episode; in Velocity, whose velocity and yaw
  rate are (see `smp.mdp.init_states.init_motion_weights`). None: uniform, as published.
  For tasks that command a speed."""

  spread_init_heights: bool = False
  """Whether starts are spread evenly over heights of the head
  (`smp.mdp.init_states.init_height_weights`); else they are as often as generated, and
  few are between sitting and standing. With a curriculum they begin near standing and
  grow downward."""

  fallen_init_prob: float = 0.0
  """Share of episodes that start from a fallen state: prone, supine or on a side, in a
  simulated pose that the prior has not seen."""

  fallen_buffer_size: int = 256
  """Number of simulated fallen states."""

  min_smp_reward_fallen: float = 0.0
  """Lower bound of r_smp in episodes that start from a fallen state: ``product``
  becomes task * (bound + (1 - bound) * r_smp). r_smp may be near 0 there, and without a
  bound the task reward would give no signal."""

  gsi_refresh_interval: int = 2400
  """Environment steps between two partial replacements of the GSI buffer; 0: never."""

  gsi_refresh_size: int = 1024
  """Windows replaced each time, oldest first."""

  # The term never resamples by time: it acts only when an episode starts.
  resampling_time_range: tuple[float, float] = (1e9, 1e9)

  def choice(self) -> StyleCfg:
    """Return the choice of styles for all environments; a list of one is that style.

    Raises:
      UserError: The list is malformed, or not the only choice of a style.
    """
    choice = StyleCfg(self.style, self.style_upper, self.style_lower, self.style_weight)
    if self.styles is None:
      return choice
    if choice.named():
      raise UserError(
        f"styles '{self.styles}' and style '{choice.title()}': give one of them; with "
        "styles each environment has one of the list"
      )
    names = split_names(self.styles)
    if len(names) == 1:
      return replace(parse_style(names[0]), weight=self.style_weight)
    return choice

  def names(self) -> tuple[str, ...]:
    """Return the styles of which each environment draws one; empty: there is no list.

    Raises:
      UserError: As `choice`.
    """
    several = self.styles is not None and not self.choice().named()
    return split_names(self.styles or "") if several else ()

  def style_title(self) -> str | None:
    """Return the styles in a word or few; None: there are none."""
    choice, names = self.choice(), self.names()
    if not names:
      return choice.title() if choice.named() else None
    return replace(choice, style=f"each of {', '.join(names)}").title()

  def form(self) -> RewardForm:
    """Return the settings of the reward's composition."""
    return RewardForm(
      self.reward_mode, self.sds_scale, self.task_reward_weight, self.smp_reward_weight
    )

  def build(self, env: ManagerBasedRlEnv) -> SmpTerm:
    """Return the term for an environment."""
    return SmpTerm(self, env)


class SmpTerm(CommandTerm):
  """The motion prior in an environment: its window, its reward, its initial states.

  Each of the three is a part with one purpose: `MotionWindow` records and encodes
  poses, a `StyleReward` judges them, `InitStates` supplies the initial states. Rewards
  and terminations call `r_smp` and `sds_loss`; the first call in a step records and
  judges the current frame, once.

  As a "command" it is plotted live in the viewer: r_smp, then the SDS loss of each
  timestep. No policy observes it. It must be the first command of a task, because it
  writes the initial state, relative to which other commands place their goals.

  Raises:
    UserError: it is not the first command, the prior does not fit, or a setting is
      invalid.
  """

  cfg: SmpTermCfg

  def __init__(self, cfg: SmpTermCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    _check_order(cfg, env)
    _check_sizes(cfg)
    _check_init_speeds(cfg, env)
    self.robot = cast(Entity, env.scene[cfg.entity_name])
    self.prior = _choose_style(
      cfg, _load_prior(cfg.prior, self.robot, env.step_dt, self.device)
    )
    self._styled = _each_style(cfg, self.prior)
    """The prior under each style, where environments have styles of their own."""
    self.env_styles: EnvStyles | None = None
    if cfg.names():
      self.env_styles = EnvStyles(
        cfg.names(), self.num_envs, self.device, cfg.only_style
      )
    spec = self._spec(env.step_dt)
    self.window = MotionWindow(spec, self.num_envs, self.device)
    self.style = self._make_style(spec)
    self.style_step = StyleStep(self.window, self.style)
    self.task_reward = torch.zeros(self.num_envs, device=self.device)
    """(N,) weighted sum of the task terms of the current step, before composition."""
    self._scored_step = -1
    self._by_style: dict[str, torch.Tensor] = {}
    """Mean r_smp of each style in the current step, by its name in the log."""
    self.init_states: InitStates = self._make_init_states(spec)
    self.lowest_start = 0.0
    """Lowest head of a start, m, with ``spread_init_heights``."""
    self.init_mode = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
    """(N,) kind of each episode's initial state in `smp.mdp.init_states.INIT_MODES`."""
    self.floor = torch.zeros(self.num_envs, device=self.device)
    """(N,) lower bound of r_smp in the current episodes."""
    generated = self.init_states.generated.joint_pos
    self._data_amplitude = self.window.limbs @ generated.std(dim=1).mean(dim=0)
    self.style_step.prepare(self._wants_compiling())

  @classmethod
  def of(cls, env: ManagerBasedRlEnv) -> SmpTerm:
    """Return the term of an environment of one of this project's tasks."""
    return cast(SmpTerm, env.command_manager.get_term(SMP_TERM))

  # Building.

  def _spec(self, step_dt: float) -> FeatureSpec:
    if self.prior is not None:
      return self.prior.spec
    return g1_spec(joint_names=tuple(self.robot.joint_names), fps=round(1 / step_dt, 6))

  def _make_style(self, spec: FeatureSpec) -> StyleReward:
    cfg = self.cfg
    if self.prior is None:
      return NoStyle(self.num_envs, self.device)
    labels, styles = None, self.env_styles
    if styles is not None:
      labels = window_labels(
        styles.index, styles.names, self.prior.styles, cfg.style_weight
      )
    return SmpReward(
      sds_loss_fn=self.prior.sds_loss_at(
        cfg.timesteps, cfg.precision, cfg.score_steps, labels
      ),
      normalizer=self._normalizer(self.prior),
      timesteps=cfg.timesteps,
      sds_scale=cfg.sds_scale,
      update=cfg.update_statistics,
      num_envs=self.num_envs,
      window=spec.window,
    )

  def _normalizer(self, prior: MotionPrior) -> SdsNormalizer | StyleNormalizers:
    """Return the scale of the errors, or that of each style."""
    if self.env_styles is None:
      return _make_normalizer(self.cfg, prior).to(self.device)
    # All styles together have seen so many windows when they freeze.
    share = self.cfg.freeze_after_samples / len(self._styled)
    cfg = replace(self.cfg, freeze_after_samples=share)
    parts = {
      name: _make_normalizer(cfg, styled).to(self.device)
      for name, styled in self._styled.items()
    }
    return StyleNormalizers(parts, self.env_styles.index)

  def _make_init_states(self, spec: FeatureSpec) -> InitStateSampler:
    if self.prior is None:
      robot = self.robot.data
      pose = torch.cat((robot.default_root_state[0, :7], robot.default_joint_pos[0]))
      generated = DefaultPose(pose, spec, self.window.kinematics, self.device)
    else:
      options = (
        self.window.kinematics,
        self.cfg.gsi_buffer_size,
        self.device,
        self.cfg.filter_init_states,
        self.cfg.max_init_head_height,
      )
      if self._styled:
        generated = StyledGsiBuffer(self._styled, *options)
      else:
        generated = GsiBuffer(self.prior, *options)
      generated.refresh(self.cfg.gsi_buffer_size)
      print(f"[INFO] Initial states: {generated.report}")
    return InitStateSampler(
      generated, self._fallen_states(spec), self.cfg.fallen_init_prob
    )

  def _fallen_states(self, spec: FeatureSpec) -> FallenStateBuffer | None:
    share = self.cfg.fallen_init_prob
    if not 0.0 <= share <= 1.0:
      raise UserError(f"fallen_init_prob is {share}, expected a share from 0 to 1")
    if share == 0.0:
      return None
    size = self.cfg.fallen_buffer_size
    buffer = FallenStateBuffer(size, spec, self.window.kinematics, self.device)
    print(
      f"[INFO] Initial states: {100 * share:.0f} % of episodes start as one of {size} "
      "fallen states"
    )
    return buffer

  def _wants_compiling(self) -> bool:
    on_cpu = torch.device(self.device).type == "cpu"
    if self.cfg.compile_score and on_cpu:
      print(
        "[INFO] The denoiser is compiled C on a CPU already: compile_score is ignored"
      )
    return self.cfg.compile_score and not on_cpu

  # Interface for rewards and terminations.

  def r_smp(self) -> torch.Tensor:
    """Return r_smp of the current step (N,), in (0, 1]; 1 without a prior."""
    self._score_current_step()
    return self.style.reward

  def sds_loss(self) -> torch.Tensor:
    """Return the SDS losses of the current step (N, K), not normalised."""
    self._score_current_step()
    return self.style.errors

  def compose_task(self, value: torch.Tensor, weight: float) -> torch.Tensor:
    """Return a task term's value (N,) as it enters the reward.

    Args:
      value: The term's own value, without its weight.
      weight: The term's weight, for the log of the plain task reward.
    """
    r_smp = self.r_smp()
    self.task_reward.add_(value, alpha=weight)
    return value * task_share(r_smp, self.floor, self.cfg.form())

  def compose_prior(self) -> torch.Tensor:
    """Return what r_smp adds to the reward beside the task terms (N,)."""
    return smp_share(self.r_smp(), self.cfg.form())

  # Checkpoints.

  def state_dict(self) -> dict[str, Any]:
    """Return normaliser state and initial states for a checkpoint."""
    return {**self.style.state_dict(), "init_states": self.init_states.state_dict()}

  def load_state_dict(self, saved: dict[str, Any]) -> None:
    """Restore what `state_dict` returned, so that training resumes without a jump."""
    self.load_means(saved)
    if not self.init_states.load_state_dict(saved["init_states"]):
      print(
        "[INFO] checkpoint has a GSI buffer of another size or other styles: keeping the "
        "fresh one"
      )

  def load_means(self, saved: dict[str, Any]) -> bool:
    """Restore the normaliser state alone.

    A scale that is the prior's own stays as it is. Of a policy that was trained on it at
    other timesteps, it becomes that of the timesteps here.

    Returns:
      Whether there is a scale now (`SmpReward.load_state_dict`).
    """
    here, theirs = tuple(self.cfg.timesteps), tuple(saved.get(TIMESTEPS, ()))
    reference = None if self.prior is None else self.prior.reference
    on_reference = bool((saved["count"] == 1.0).all())
    plain = self.env_styles is None
    if theirs and theirs != here and on_reference and reference is not None and plain:
      print(
        f"[INFO] trained at the timesteps {', '.join(map(str, theirs))}: errors here are "
        f"those of {', '.join(map(str, here))}, on the prior's scale of these"
      )
      own = ReferenceSdsNormalizer(reference.at(here))
      saved = {"mean": own.mean, "count": own.count}
    return self.style.load_state_dict(saved)

  # Interface of mjlab's commands.

  @property
  def command(self) -> torch.Tensor:
    """Return r_smp and the SDS losses (N, 1 + K) for the viewer's plot."""
    return torch.cat((self.style.reward.unsqueeze(-1), self.style.errors), dim=-1)

  def _update_metrics(self) -> None:
    """Do nothing: means over environments go to the log every step instead."""

  def _resample_command(self, env_ids: torch.Tensor) -> None:
    """Start episodes: write the last frame of a drawn window as the state."""
    styles = None
    if self.env_styles is not None:
      self.env_styles.draw(env_ids)
      styles = self.env_styles.index[env_ids]
    start, mode = self.init_states.draw(
      len(env_ids), self._init_weights(env_ids), styles
    )
    self.init_mode[env_ids] = mode
    self.floor[env_ids] = self.cfg.min_smp_reward_fallen * (mode > 0)
    self.window.fill(env_ids, start)
    last = start.root_pos_w[:, -1] + self._env.scene.env_origins[env_ids]
    velocity = torch.cat(
      (start.root_lin_vel_w[:, -1], start.root_ang_vel_w[:, -1]), dim=-1
    )
    fps = self.window.spec.fps
    joint_vel = (start.joint_pos[:, -1] - start.joint_pos[:, -2]) * fps
    self.robot.write_root_link_pose_to_sim(
      torch.cat((last, start.root_quat_w[:, -1]), dim=-1), env_ids=env_ids
    )
    self.robot.write_root_link_velocity_to_sim(velocity, env_ids=env_ids)
    self.robot.write_joint_state_to_sim(
      start.joint_pos[:, -1], joint_vel, env_ids=env_ids
    )

  def _init_weights(self, env_ids: torch.Tensor) -> torch.Tensor | None:
    """Return the weight of each generated window for each episode (n, P), or None.

    None means uniform. Commands are drawn after the initial states, because goals are
    placed around these; so the commanded motion is drawn ahead.
    """
    generated, bandwidth = self.init_states.generated, self.cfg.init_speed_bandwidth
    if self.cfg.spread_init_heights:
      weights = init_height_weights(generated.head_height, self.lowest_start)
      return weights.expand(len(env_ids), -1)
    if bandwidth is None:
      return None
    manager = self._env.command_manager
    terms = (manager.get_term(name) for name in manager.active_terms)
    command = next(term for term in terms if isinstance(term, MovingCommand))
    motion = command.start_motion(generated.velocity, generated.yaw_rate)
    return init_motion_weights(motion, command.draw_next(env_ids), bandwidth)

  def _update_command(self, env_ids: torch.Tensor | None) -> None:
    if env_ids is not None:
      return  # A reset, not a step.
    self._log()
    step = self._env.common_step_counter
    if step % self.cfg.sync_interval == 0:
      self.style.synchronize()
    interval = self.cfg.gsi_refresh_interval
    if interval > 0 and step > 0 and step % interval == 0:
      self.init_states.refresh(self.cfg.gsi_refresh_size)

  # The style reward.

  def _score_current_step(self) -> None:
    if self._scored_step == self._env.common_step_counter:
      return
    self._scored_step = self._env.common_step_counter
    self.task_reward.zero_()
    pos = robot_state.root_pos_w(self.robot) - self._env.scene.env_origins
    quat, joints = robot_state.root_quat_w(self.robot), self.robot.data.joint_pos
    self.style_step.run(pos, quat, joints)
    if self.env_styles is not None:
      # Now, because a reset draws other styles before the log is written.
      means = self.env_styles.means(self.style.reward)
      self._by_style = {
        f"Smp/r_smp_{log_name(name)}": mean for name, mean in means.items()
      }

  def _log(self) -> None:
    log = self._env.extras["log"]
    # Leave diverged environments out of the means.
    task = self.task_reward.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    log["Smp/task_reward"] = task.mean()
    log.update(self.style.log())
    log.update(self._by_style)
    ratio = self.window.amplitude / self._data_amplitude.clamp(min=1e-6)
    for i, limb in enumerate(g1.LIMBS if self.prior is not None else ()):
      log[f"Smp/amplitude_{limb}"] = ratio[i]


def _check_order(cfg: SmpTermCfg, env: ManagerBasedRlEnv) -> None:
  """Raise unless the term is the first command and the reward mode has its prior."""
  first = next(iter(env.cfg.commands))
  if env.cfg.commands[first] is not cfg:
    raise UserError(
      f"env.commands: '{SMP_TERM}' must come first, not '{first}': it writes the initial "
      "state that other commands place their goals around"
    )
  if cfg.prior is None and cfg.reward_mode != "task_only":
    raise UserError(
      f"reward_mode {cfg.reward_mode} needs a motion prior and prior is None; give "
      "--env.commands.smp.prior, or --env.commands.smp.reward-mode task_only"
    )


def _check_sizes(cfg: SmpTermCfg) -> None:
  """Raise if something has no size."""
  for name in ("sync_interval", "gsi_buffer_size"):
    if getattr(cfg, name) < 1:
      raise UserError(f"{name} is {getattr(cfg, name)}, expected 1 or more")


def _check_init_speeds(cfg: SmpTermCfg, env: ManagerBasedRlEnv) -> None:
  """Raise if initial speeds are to match a command that has no speed."""
  bandwidth = cfg.init_speed_bandwidth
  if bandwidth is None:
    return
  if cfg.spread_init_heights:
    raise UserError(
      "spread_init_heights and init_speed_bandwidth: starts are chosen by one of them; "
      "leave the other out (--env.commands.smp.init-speed-bandwidth None)"
    )
  if not bandwidth > 0.0:
    raise UserError(
      f"init_speed_bandwidth is {bandwidth} m/s, expected more than 0, or None"
    )
  if not any(isinstance(c, MovingCommandCfg) for c in env.cfg.commands.values()):
    raise UserError(
      f"init_speed_bandwidth is {bandwidth} m/s, but this task commands no speed; leave "
      "it out"
    )


def _load_prior(
  name: str | None, robot: Entity, step_dt: float, device: str
) -> MotionPrior | None:
  """Return a prior that fits the robot and the control rate; None without a name.

  Raises:
    UserError: names the file and the field that does not fit, with both values.
  """
  if name is None:
    return None
  path = resolve_prior(name)
  prior = MotionPrior.load(path)
  expected = g1_spec(
    joint_names=tuple(robot.joint_names),
    fps=round(1.0 / step_dt, 6),
    # How headings are found is the prior's choice, which the encoder follows. Velocities
    # here are always those of the window: those of a clip know what comes after it.
    heading=prior.spec.heading,
    velocity=prior.spec.velocity,
  )
  try:
    prior.spec.check(expected)
  except UserError as error:
    raise UserError(f"{path} does not fit this environment: {error}") from None
  return prior.to(device)


def _choose_style(cfg: SmpTermCfg, prior: MotionPrior | None) -> MotionPrior | None:
  """Return the prior under the styles of the configuration.

  Raises:
    UserError: There is no prior, or it has no such style; names the file.
  """
  styles, title = cfg.choice(), cfg.style_title()
  if title is not None and prior is None and cfg.only_style is None:
    raise UserError(
      f"style '{title}': there is no prior here; give --env.commands.smp.prior"
    )
  if prior is None or not styles.named():
    return prior
  try:
    chosen = prior.with_style(styles)
  except UserError as error:
    raise UserError(f"{resolve_prior(cast(str, cfg.prior))}: {error}") from None
  print(f"[INFO] Style: {styles.title()}")
  return chosen


def _each_style(cfg: SmpTermCfg, prior: MotionPrior | None) -> dict[str, MotionPrior]:
  """Return the prior under each of the styles that environments draw from, by name.

  Raises:
    UserError: The prior has no such style (names the file), or the only one is not in
      the list.
  """
  names = cfg.names()
  if cfg.only_style is not None:
    check_style(cfg.only_style, names, "this environment")
  if prior is None or not names:
    return {}
  try:
    for name in names:
      find_parts(name, prior.styles, "styles")
  except UserError as error:
    raise UserError(f"{resolve_prior(cast(str, cfg.prior))}: {error}") from None
  print(f"[INFO] Style: {cfg.style_title()}")
  return {
    name: prior.with_style(replace(parse_style(name), weight=cfg.style_weight))
    for name in names
  }


def _make_normalizer(cfg: SmpTermCfg, prior: MotionPrior) -> SdsNormalizer:
  """Return the normaliser that the configuration selects, on the CPU.

  Raises:
    UserError: the reference scale is selected, and the prior has none.
  """
  if cfg.sds_normalizer == "running":
    return SdsNormalizer(len(cfg.timesteps), cfg.freeze_after_samples)
  path = resolve_prior(cast(str, cfg.prior))
  if prior.reference is None:
    raise UserError(
      f"{path}: has no reference errors, which sds-normalizer 'reference' needs; add them "
      f"with scripts/measure_reference.py {path} --windows NPZ, or use 'running'"
    )
  print(f"[INFO] Scale of the errors: that of {prior.reference.what()} ({path.stem})")
  return ReferenceSdsNormalizer(prior.reference.at(cfg.timesteps))
