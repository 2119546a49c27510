"""Fits: maximum likelihood and EM, one file each, with one result."""
