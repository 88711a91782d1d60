"""Configurations evaluated on images by workers."""
