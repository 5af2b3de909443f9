"""Checkpoints to a bundle: ONNX graphs, calibration, proof of parity, model card."""
