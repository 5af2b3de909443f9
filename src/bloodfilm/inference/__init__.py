"""From images to results with a bundle's two ONNX graphs; no PyTorch."""
