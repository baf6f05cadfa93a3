"""The motion prior: a small diffusion model of short windows of motion."""
