"""Scripts that train, evaluate and package the zoo's models."""
