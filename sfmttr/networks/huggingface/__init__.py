"""Any depth network of the Hugging Face Hub, or of a folder laid out like one.

`model_id` parses names; `model_card` and `model_files` read a model's files, which `download` and `cache` fetch;
`model_config` and `preprocess` interpret them; `adapter` wraps the network; `loader` puts all of it together.
"""
