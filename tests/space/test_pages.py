"""HTML of the page: nothing that was written becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser

from unswayed.space import pages
from unswayed.space.flips import Answer, own_item, own_user

EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">'


class Tags(HTMLParser):
    """Names of the tags and of the attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def made() -> str:
    item = own_item(EVIL, f"{EVIL}\nb")
    answers = [
        Answer(None, (0.75, 0.25), 0, None),
        Answer(own_user(EVIL), (0.25, 0.75), 1, True),
    ]
    return pages.flip_page(item, answers)


def test_markup_of_visitors_is_shown_as_text():
    for page in (made(), pages.complaint(EVIL), pages.notice(EVIL)):
        parsed = Tags(page)
        assert not parsed.tags & {"script", "img"} and "onerror" not in parsed.attributes
        assert EVIL in parsed.text
    rows = [(EVIL, EVIL, {"estimate": 0.5, "low": 0.4, "high": 0.6})]
    parsed = Tags(pages.intervals(EVIL, rows))
    assert not parsed.tags & {"script", "img"} and parsed.text.count(EVIL) == 2


def test_a_flip_is_said_in_words_not_in_colour_alone():
    parsed = Tags(made())
    assert "The answer flips" in parsed.text and "⇄ flips" in parsed.text
    assert parsed.text.count("✓ picked") == 2 and "75.0 %" in parsed.text
    assert "aria-label" in parsed.attributes and "role" in parsed.attributes


def test_intervals_lie_on_the_axis():
    value = {"estimate": 0.25, "low": -0.5, "high": 0.5}
    page = pages.intervals("t", [("a", "none", value)])
    assert 'class="us-whisker" style="left:0.0%;width:50.00%"' in page
    assert 'class="us-dot" style="left:25.0%"' in page and "25.0 [-50.0, 50.0]" in page
    alone = {"estimate": 0.1, "low": None, "high": None}
    assert "us-whisker" not in pages.intervals("t", [("a", "none", alone)])


def test_texts_and_style_are_there():
    for name in ("lead", "flip", "results", "audit", "about"):
        assert pages.text(name).strip()
    assert ".us-panel" in pages.style()
