"""What training draws from: fields, crops, samplers and augmentation."""
