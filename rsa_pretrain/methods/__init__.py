"""The pretraining methods: one module each."""
