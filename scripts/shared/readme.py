"""The README's generated blocks, each between two marks of its name."""

from pathlib import Path


def write_block(readme: Path, name: str, text: str) -> None:
    """Put the text between <!-- name --> and <!-- /name -->."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    readme.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")
