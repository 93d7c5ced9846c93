"""Bytes of strangers, judged before they are believed."""
