"""Training of policies, and the files that hold them.

Outside of the learners (`smp.rl.runner` for PPO, `smp.rl.off_policy` for TD3) no code
depends on which of them trained a policy: checkpoints, policy files, actors and
`load_policy` are the same for all.

The package imports mjlab first, so that the order in which a program imports the two
makes no difference (see `smp.mdp`).
"""

import mjlab as mjlab
