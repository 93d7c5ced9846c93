"""What `beside.py` compares: bytes of files, values of JSON, tokens of vocabularies, keys of config.json."""
