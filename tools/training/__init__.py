"""What trains the network `bundled`: generated scenes in, weights and their model card out."""
