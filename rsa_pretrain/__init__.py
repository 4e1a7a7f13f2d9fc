"""Self-supervised pretraining of ResNets with RSA."""
