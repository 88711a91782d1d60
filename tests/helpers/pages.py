"""The documentation's pages as what can be run: their blocks of code, in order.

What a page does is done in one folder, block by block, as a reader would. A comment before a block
says what is different about it:

    <!-- file: half.json -->            the block is the text of a file, which later blocks use
    <!-- not run: needs the hub -->     it is only read: by the parser, or by Python's compiler
    <!-- refused -->                    it is a mistake, which ends in the message that is shown
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = "sh"
COMMENT = re.compile(r"<!-- (file|not run|refused)(?:: (.+?))? -->")


@dataclass(frozen=True)
class Block:
    """One block of code.

    where: page and line. language: as the fence names it. name: of the file whose text it is, ""
    where it is none. not_run: why it cannot be run, "" where it can. output: of the block, as the
    page shows it behind. refused: whether that is the refusal of a mistake.
    """

    where: str
    language: str
    text: str
    name: str = ""
    not_run: str = ""
    output: str = ""
    refused: bool = False

    def __str__(self) -> str:
        return self.where


def blocks(page: Path) -> list[Block]:
    """The page's blocks of code in order, directives left out."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    found: list[Block] = []
    said: dict[str, str] = {}
    before = ""
    for token in tokens:
        if token.type == "html_block":
            said = dict(COMMENT.findall(token.content))
            continue
        if token.type == "fence" and not token.info.startswith("{"):
            where = f"{page.relative_to(ROOT)}:{(token.map or [0])[0] + 1}"
            if token.info == "text" and before == SHELL:
                found[-1] = replace(found[-1], output=token.content)
            else:
                found.append(
                    Block(
                        where, token.info, token.content, said.get("file", ""),
                        said.get("not run", ""), refused="refused" in said,
                    )  # fmt: skip
                )
        before = token.info if token.type == "fence" else ""
        said = {}
    return found


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block, word by word; comments and line ends are taken off."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "&&" in words:
            cut = words.index("&&")
            yield words[:cut]
            words = words[cut + 1 :]
        if words:
            yield words
