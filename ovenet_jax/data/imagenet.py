"""ImageNet's mean and standard deviation (RGB), which normalise the inputs of networks that start from its weights."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of values from 0 to 1
MEAN_COLOR = (124, 116, 104)  # the mean in bytes
