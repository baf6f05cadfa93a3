"""Learning: what trains a policy, and the files that hold one.

Above the learners (`smp.rl.runner` for PPO, `smp.rl.off_policy` for TD3) nothing knows
which of them trained a policy: checkpoints, policy files, actors and `load_policy` are
the same for all.
It imports mjlab first, so that the order in which a program imports the two makes no
difference (see `smp.mdp`).
"""

import mjlab as mjlab
