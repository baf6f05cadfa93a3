"""The PPO settings of all tasks."""

from __future__ import annotations

from mjlab.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg

HIDDEN_DIMS = (512, 256, 128)


def ppo_cfg(experiment_name: str) -> RslRlOnPolicyRunnerCfg:
  """Return rsl_rl's settings; the numbers are those of the published G1 set-up."""
  return RslRlOnPolicyRunnerCfg(
    actor=RslRlModelCfg(
      hidden_dims=HIDDEN_DIMS,
      activation="elu",
      obs_normalization=True,
      distribution_cfg={
        "class_name": "GaussianDistribution",
        "init_std": 0.3,
        "std_type": "scalar",
        "learn_std": False,
      },
    ),
    critic=RslRlModelCfg(
      hidden_dims=HIDDEN_DIMS, activation="elu", obs_normalization=True
    ),
    algorithm=RslRlPpoAlgorithmCfg(
      num_learning_epochs=5,
      num_mini_batches=4,
      learning_rate=1e-3,
      schedule="adaptive",
      desired_kl=0.01,
      clip_param=0.2,
      gamma=0.99,
      lam=0.95,
      entropy_coef=0.0,
      value_loss_coef=1.0,
      use_clipped_value_loss=True,
      max_grad_norm=1.0,
    ),
    experiment_name=experiment_name,
    wandb_project="smp",
    num_steps_per_env=24,
    save_interval=500,
    max_iterations=30_000,
  )
