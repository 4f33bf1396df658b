"""The configs of --config: get_config(variant) of each file sets network, data set, training and test protocol."""
