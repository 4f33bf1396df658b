"""The networks, data sets and tests that --config names: get_config(variant) of each file."""
