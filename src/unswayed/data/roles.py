"""Who speaks, by the names that files have for it."""

ROLES = dict.fromkeys(("user", "human", "prompter"), "user")
ROLES |= dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "bot", "model"), "assistant")
ROLES |= dict.fromkeys(("system", "developer"), "system")
