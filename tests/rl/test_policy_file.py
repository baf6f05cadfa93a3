"""Policies in files of their own."""

from __future__ import annotations

import copy
import json
import math
import sys
from typing import Any, cast

import pytest
import torch

from smp.cli import package_policy
from smp.errors import UserError
from smp.evaluation.policy import summary
from smp.rl.checkpoint import read_checkpoint
from smp.rl.policy_file import load_trained, read_means, read_policy, save_policy
from smp.utils.tensor_files import load_tensors, save_tensors
from tests import toy_training

pytestmark = pytest.mark.slow
TASK = "Smp-Forward-G1"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A runner after training, and its checkpoint."""
  folder = tmp_path_factory.mktemp("run")
  runner = toy_training.make_runner(folder)
  runner.learn(3)
  return runner, folder / "model_2.pt"


@torch.inference_mode()
def actions(runner, observations) -> torch.Tensor:
  return runner.get_inference_policy(device="cpu")(observations)


def test_both_kinds_of_file_give_the_same_actions(trained, tmp_path):
  runner, checkpoint = trained
  shipped = tmp_path / "forward.pt"
  save_policy(checkpoint, shipped, TASK)
  observations = runner.env.get_observations()
  expected = actions(runner, observations)
  for path in (checkpoint, shipped):
    trained_policy = load_trained(path, TASK)
    with torch.inference_mode():
      found = trained_policy.actor(observations["actor"])
    torch.testing.assert_close(found, expected)
    assert trained_policy.card["learner"] == "ppo"
    assert trained_policy.means is not None
    for name in ("mean", "count"):
      old = getattr(cast(Any, runner._smp_term()).normalizer, name)
      assert torch.equal(old, trained_policy.means[name])


@pytest.mark.parametrize(
  "entry", ["actor_state_dict", "critic_state_dict", "optimizer_state_dict"]
)
def test_a_checkpoint_with_nan_anywhere_is_refused(trained, tmp_path, entry):
  _, checkpoint = trained
  saved = load_tensors(checkpoint, "checkpoint")

  def spoil(table: Any) -> bool:
    for each in table.values():
      if isinstance(each, torch.Tensor) and each.is_floating_point() and each.numel():
        each.view(-1)[-1] = math.nan
        return True
      if isinstance(each, dict) and spoil(each):
        return True
    return False

  assert spoil(saved[entry])
  path = tmp_path / "model_2.pt"
  save_tensors(path, saved)
  for read in (lambda: read_checkpoint(path, "cpu"), lambda: load_trained(path, TASK)):
    with pytest.raises(UserError, match=rf"model_2.pt: {entry}\..* not finite"):
      read()


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--output", "x.md"], "--output x.md: end the name in .pt"),
    (["--evaluation", "gone.json"], "--evaluation gone.json: does not exist"),
    (["--runs", "gone"], "--runs gone: does not exist"),
  ],
)
def test_nothing_is_written_where_an_option_is_wrong(
  trained, tmp_path, monkeypatch, words, message
):
  _, checkpoint = trained
  monkeypatch.chdir(tmp_path)
  first = ["package_policy", str(checkpoint), TASK, "--output", "x.pt", *words]
  monkeypatch.setattr(sys, "argv", first)
  with pytest.raises(UserError, match=message):
    package_policy.main()
  assert not list(tmp_path.iterdir())


def test_a_policy_file_holds_no_more_than_it_needs(
  trained, tmp_path, monkeypatch, capsys
):
  _, checkpoint = trained
  shipped = tmp_path / "policies" / "forward.pt"
  monkeypatch.setattr(
    sys, "argv", ["package_policy", str(checkpoint), TASK, "--output", str(shipped)]
  )
  package_policy.main()
  assert "iteration: 2" in capsys.readouterr().out
  assert shipped.stat().st_size < 1.5e6 < 1.5e7 < checkpoint.stat().st_size
  policy = read_policy(shipped)
  entries = {"format", "actor_state_dict", "actor_spec", "mean", "count", "card"}
  assert set(policy) == entries
  card = policy["card"]
  steps = 3 * toy_training.STEPS * toy_training.ENVS
  assert (card["task"], card["iteration"], card["steps"]) == (TASK, 2, steps)
  assert card["prior"] == "loco" and card["command"] and card["commit"]
  assert any(name.startswith("obs_normalizer") for name in policy["actor_state_dict"])


def test_an_evaluation_of_another_policy_leaves_nothing(
  trained, tmp_path, monkeypatch, capsys
):
  _, checkpoint = trained
  own = load_trained(checkpoint).actor.digest()
  results = {"protocol": {"task": TASK, "notes": []}, "command": "evaluate.py"}
  figure = {"value": 0.5, "low": 0.25, "high": 0.75}
  figures = {each.key: figure for each in summary.metrics_of(TASK)}
  row = {"label": "1 m/s", "episodes": 3, "figures": figures}
  monkeypatch.chdir(tmp_path)
  first = ["package_policy", str(checkpoint), TASK, "--output", "x.pt"]
  monkeypatch.setattr(sys, "argv", [*first, "--evaluation", "evaluation.json"])
  evaluation = tmp_path / "evaluation.json"

  def write(**of: str | None) -> None:
    policy = {"name": "A/model_7", "conditions": [row], **of}
    evaluation.write_text(json.dumps({**results, "policies": [policy]}))

  for other in ("0" * 64, None):  # None: of no policy file, as of random actions.
    write(weights=other)
    with pytest.raises(UserError, match=r"another policy \(A/model_7\), not of this"):
      package_policy.main()
    assert list(tmp_path.iterdir()) == [evaluation]
  known: list[dict[str, str | None]] = [{"weights": own}, {}]
  for of in known:  # Earlier evaluations do not say.
    write(**of)
    package_policy.main()
    assert "1 m/s | 3" in (tmp_path / "x.md").read_text()
    assert load_trained("x.pt").actor.digest() == own
  changed = load_trained("x.pt").actor
  changed.obs_normalizer.get_buffer("_mean")[0, 0] += 1.0
  assert changed.digest() != own


def test_the_weights_may_be_the_mean_of_several_checkpoints(
  trained, tmp_path, monkeypatch
):
  _, last = trained
  saved = torch.load(last, weights_only=True)
  changed = copy.deepcopy(saved)
  changed["iter"] = 1
  for name, value in changed["actor_state_dict"].items():
    changed["actor_state_dict"][name] = (
      value + 0.5 if value.is_floating_point() else value
    )
  other, shipped = tmp_path / "model_1.pt", tmp_path / "policy.pt"
  torch.save(changed, other)
  words = ["package_policy", str(last), TASK, "--output", str(shipped)]
  monkeypatch.setattr(sys, "argv", [*words, "--average-with", str(other)])
  package_policy.main()
  policy = read_policy(shipped)
  assert policy["card"]["mean_of_iterations"] == [1, 2]
  for name, value in policy["actor_state_dict"].items():
    own = saved["actor_state_dict"][name]
    expected = own + 0.25 if name.startswith("mlp.") else own
    torch.testing.assert_close(value, expected)
  changed["actor_state_dict"]["mlp.0.weight"] = torch.zeros(2, 2)
  torch.save(changed, other)
  with pytest.raises(UserError, match="model_1.pt: of another network; average"):
    save_policy(last, tmp_path / "not.pt", TASK, [other])
  assert not (tmp_path / "not.pt").exists()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"task": "Smp-Steering-G1"}, "its task is 'Smp-Steering-G1', the checkpoint's"),
    ({"prior": "walk_run"}, "its prior is 'walk_run'"),
    ({"actor": {"terms": ["joint_pos"], "history": 1}}, "its actor is"),
  ],
)
def test_checkpoints_of_other_runs_are_not_averaged(trained, tmp_path, change, message):
  """Weights of the same shapes may mean other things."""
  _, last = trained
  other = tmp_path / "model_1.pt"
  saved = load_tensors(last, "checkpoint")
  saved["infos"]["origin"] |= change
  save_tensors(other, saved)
  with pytest.raises(UserError, match=f"model_1.pt: {message}"):
    save_policy(last, tmp_path / "not.pt", TASK, [other])
  for twice in ([last], [other, other]):
    with pytest.raises(UserError, match="given twice"):
      save_policy(last, tmp_path / "not.pt", TASK, twice)
  assert not (tmp_path / "not.pt").exists()


def test_a_checkpoint_is_not_written_over(trained, tmp_path, monkeypatch):
  _, last = trained
  one, other = tmp_path / "model_2.pt", tmp_path / "model_1.pt"
  for path in (one, other):
    path.write_bytes(last.read_bytes())
  for output in (one, other):
    words = ["package_policy", str(one), TASK, "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(UserError, match="the checkpoint itself|is no policy file"):
      package_policy.main()
    assert output.read_bytes() == last.read_bytes()
  # A policy may be packaged again.
  words = ["package_policy", str(one), TASK, "--output", str(tmp_path / "policy.pt")]
  monkeypatch.setattr(sys, "argv", words)
  for _ in range(2):
    package_policy.main()
  assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
    "model_1.pt",
    "model_2.pt",
    "policy.pt",
  ]


def test_other_tasks_and_files_are_refused(trained, tmp_path):
  _, former = trained
  checkpoint, shipped = tmp_path / "model_2.pt", tmp_path / "steering.pt"
  content = torch.load(former, weights_only=True)
  content["infos"]["origin"]["task"] = "Smp-Steering-G1"
  torch.save(content, checkpoint)
  with pytest.raises(UserError, match="a policy of Smp-Steering-G1, not of"):
    save_policy(checkpoint, shipped, TASK)
  assert not shipped.exists()
  save_policy(checkpoint, shipped, "Smp-Steering-G1")
  for path in (checkpoint, shipped):
    with pytest.raises(UserError, match="a policy of Smp-Steering-G1, not of"):
      load_trained(path, TASK)
    assert load_trained(path).card["task"] == "Smp-Steering-G1"
  # Checkpoints from before do not name their task.
  assert "task" not in load_trained(former, TASK).card
  policy = read_policy(shipped)
  weights = dict(policy["actor_state_dict"])
  weights["mlp.0.weight"] = torch.zeros(512, 3)
  torch.save({**policy, "actor_state_dict": weights}, shipped)
  with pytest.raises(UserError, match="steering.pt: not the actor of a policy"):
    load_trained(shipped)
  with pytest.raises(UserError, match="package_policy"):
    read_policy(checkpoint)
  with pytest.raises(UserError, match="missing"):
    save_policy(shipped, tmp_path / "again.pt", TASK)
  assert not (tmp_path / "again.pt").exists()


def test_means_are_read_from_both_kinds_of_file(trained, tmp_path):
  runner, checkpoint = trained
  shipped = tmp_path / "forward.pt"
  save_policy(checkpoint, shipped, TASK)
  memory = cast(Any, runner._smp_term()).normalizer
  for path in (checkpoint, shipped):
    means = read_means(path)
    assert torch.equal(means["mean"], memory.mean) and means["iteration"] == 2
    assert torch.equal(means["count"], memory.count)
  assert not torch.equal(memory.mean, torch.zeros_like(memory.mean))


def test_timesteps_and_the_clip_of_actions_are_kept(trained, tmp_path):
  runner, checkpoint = trained
  shipped, clipped = tmp_path / "forward.pt", tmp_path / "model_2.pt"
  saved = load_tensors(checkpoint, "checkpoint")
  saved["infos"]["smp"]["timesteps"] = [2, 8, 15]
  saved["infos"]["origin"]["clip_actions"] = 0.01
  save_tensors(clipped, saved)
  save_policy(clipped, shipped, TASK)
  observations = runner.env.get_observations()
  plain = actions(runner, observations)
  assert plain.abs().max() > 0.02
  for path in (clipped, shipped):
    policy = load_trained(path, TASK)
    assert policy.means is not None and policy.means["timesteps"] == [2, 8, 15]
    assert read_means(path)["timesteps"] == [2, 8, 15]
    with torch.inference_mode():
      found = policy.actor(observations["actor"])
    torch.testing.assert_close(found, plain.clamp(-0.01, 0.01))
  assert load_trained(clipped).actor.digest() == load_trained(shipped).actor.digest()
  assert load_trained(clipped).actor.digest() != load_trained(checkpoint).actor.digest()
  assert "timesteps" not in read_means(checkpoint)


def _nan(policy) -> None:
  policy["actor_state_dict"]["mlp.0.weight"][3, 4] = math.nan


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (_nan, "mlp.0.weight has values that are not finite"),
    (lambda policy: policy["mean"].fill_(math.inf), "mean has values"),
    (lambda policy: policy.update(count=3), "count is not a tensor"),
    (lambda policy: policy["actor_state_dict"].update(bias="x"), "bias is not a"),
    (lambda policy: policy.update(actor_state_dict={}), "missing: actor"),
    (lambda policy: policy.update(card=None), "missing: actor_state_dict or card"),
    (lambda policy: policy["card"].pop("task"), "its card names no task"),
    (lambda policy: policy.update(timesteps=[8.0]), "timesteps is no list of whole"),
    (lambda policy: policy["card"].pop("iteration"), "its card's iteration is None"),
    (lambda policy: policy["card"].update(iteration="x"), "card's iteration is 'x'"),
    (lambda policy: policy["count"].fill_(-1.0), "count has values below 0"),
    (
      lambda policy: policy["actor_state_dict"]["obs_normalizer._std"].neg_(),
      "obs_normalizer._std has values below 0",
    ),
  ],
)
def test_a_spoiled_policy_is_refused_by_all_who_read_one(
  trained, tmp_path, spoil, message
):
  _, checkpoint = trained
  shipped = tmp_path / "forward.pt"
  save_policy(checkpoint, shipped, TASK)
  policy = torch.load(shipped, weights_only=True)
  spoil(policy)
  torch.save(policy, shipped)
  for read in (read_policy, read_means, load_trained):
    with pytest.raises(UserError, match=f"forward.pt: .*{message}"):
      read(shipped)


@pytest.mark.parametrize("clip", [0, -1.0, math.nan, "1", True])
def test_a_clip_that_is_none_is_refused(trained, tmp_path, clip):
  _, checkpoint = trained
  saved = load_tensors(checkpoint, "checkpoint")
  saved["infos"]["origin"]["clip_actions"] = clip
  save_tensors(tmp_path / "model_2.pt", saved)
  with pytest.raises(UserError, match="model_2.pt: clip_actions is .* above 0"):
    load_trained(tmp_path / "model_2.pt")


def test_a_diverged_actor_is_not_shipped(trained, tmp_path):
  _, checkpoint = trained
  content = torch.load(checkpoint, weights_only=True)
  _nan(content)
  torch.save(content, tmp_path / "model_2.pt")
  with pytest.raises(UserError, match="not finite"):
    save_policy(tmp_path / "model_2.pt", tmp_path / "forward.pt", TASK)
  assert not (tmp_path / "forward.pt").exists()
