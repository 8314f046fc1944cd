"""Augmented views of images and captions, for the self-supervised terms."""

from __future__ import annotations

from bdbench.augment.images import image_views as image_views
from bdbench.augment.text import text_views as text_views
