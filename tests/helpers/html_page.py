"""A page of HTML as a parser sees it, which refuses what is not nested as it must be."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br"}


@dataclass
class Element:
    tag: str
    attrs: dict[str, str]
    text: str = ""
    """Of it and all that is in it."""
    inside: list[str] = field(default_factory=list)
    """Tags around it, the outermost first."""


class Page(HTMLParser):
    """All elements in their order.

    Example:
        Page('<p id="a">b<br></p>').all("p")[0].text == "b"
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {[each.tag for each in self._open]}"

    def all(self, tag: str, within: str | None = None) -> list[Element]:
        return [e for e in self.elements if e.tag == tag and (not within or within in e.inside)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"an attribute twice in <{tag}>: {names}"
        inside = [each.tag for each in self._open]
        element = Element(tag, {name: value or "" for name, value in attrs}, inside=inside)
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1].tag == tag, f"</{tag}> where it closes nothing"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for each in self._open:
            each.text += data
