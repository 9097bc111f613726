"""Strategies: the interface, the registry, the host that runs them, and the built-in ones."""
