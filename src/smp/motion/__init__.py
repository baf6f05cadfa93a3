"""Motion library: rotations, features, kinematics, clips, windows.

It never imports mjlab.
"""
