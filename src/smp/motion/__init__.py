"""Motion: rotations, features, kinematics, clips, windows. Never imports mjlab."""
