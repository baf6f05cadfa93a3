"""Policies outside mjlab: ONNX files, and plain MuJoCo to run them in.

Only `smp.deploy.onnx_export` and `smp.deploy.agreement` import mjlab and torch.
"""
