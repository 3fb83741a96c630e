"""Architectures, one adapter a file. To add a depth network:

1. Write `models/NAME.py` with a subclass of `sfmttr.networks.base.DepthNetwork`. Required are `info`, `input_hw`,
   `forward` and `encoder_parameters`; `base` lists what is optional. Parameter names are those of the authors' weights
   file, so that it loads unchanged; where they differ, override `merge_checkpoints`. End the file with
   `build(info, ...)`, which returns the network with random weights.
2. Register it in `networks/catalog.py`: its `NetworkInfo` (name, kind of depth, license, source), number of parameters,
   and the `WeightFile`s with address and sha256.
3. Run `pytest tests/networks/test_networks.py`: every registered network is tested there against the contract.

A network of the Hugging Face Hub that `transformers` knows needs no code: load `hf:ORG/NAME`, or add a `HubAlias` to
the catalog for a short name.
"""
