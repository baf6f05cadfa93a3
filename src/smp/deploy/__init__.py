"""Policies away from mjlab: ONNX files, and plain MuJoCo to run them in.

Only `smp.deploy.export` and `smp.deploy.agreement` import mjlab and torch.
"""
