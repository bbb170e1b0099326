"""Training libraries beside transformers, each in a module that is imported by name."""
