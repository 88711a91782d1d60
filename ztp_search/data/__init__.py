"""Images: any data set that timm can open, or the embedded one, decoded once into a store."""

from ztp_search.data.class_map import output_names
from ztp_search.data.preprocessing import read_pictures
from ztp_search.data.readers import DATASETS, open_source
from ztp_search.data.source import Source
from ztp_search.data.store import ImageSets, ImageStore, normalise, prepare

__all__ = [
    "DATASETS",
    "ImageSets",
    "ImageStore",
    "Source",
    "normalise",
    "open_source",
    "output_names",
    "prepare",
    "read_pictures",
]
