"""Training of the network `bundled`: generated scenes in, weights and their model card out."""
