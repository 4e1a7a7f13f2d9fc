"""Pretraining methods by name."""

from rsa_pretrain.methods.rsa import RSA

METHODS = {"rsa": RSA}
