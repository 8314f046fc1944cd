"""Image-caption pairs and labelled images, one dataset per file."""
