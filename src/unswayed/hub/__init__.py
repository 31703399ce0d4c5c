"""What goes to the Hugging Face Hub, as local files; only `push` sends anything."""

CARD = "README.md"  # the card of a repository on the Hub
