"""Cards of repositories on the Hub: README.md, YAML metadata in front of Markdown."""

CARD = "README.md"  # the card of a repository on the Hub
