"""Pretrain by one method a module."""
