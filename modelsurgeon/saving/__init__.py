"""Whole or absent: on a disk, behind a URL, on the Hub."""
