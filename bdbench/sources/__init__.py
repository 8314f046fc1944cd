"""Images with captions or labels, from the files in which people keep them."""

from bdbench.sources.collect import Collected, collect
from bdbench.sources.names import (
    all_named,
    balanced,
    class_names,
    folder_labels,
    named,
    prompt_templates,
)
from bdbench.sources.sample import Fault, Part, Sample
from bdbench.sources.source import MANY, Source, fingerprint, overlap
from bdbench.sources.tar import images_in

__all__ = [
    "MANY", "Collected", "Fault", "Part", "Sample", "Source", "all_named", "balanced",
    "class_names", "collect", "fingerprint", "folder_labels", "images_in", "named", "overlap",
    "prompt_templates",
]
