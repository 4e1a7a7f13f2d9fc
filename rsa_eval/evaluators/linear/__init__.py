"""Train linear classifiers on frozen features by published protocols."""
