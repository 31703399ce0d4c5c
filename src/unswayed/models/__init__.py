"""The one door through which a model, an adapter or a tokenizer comes in; text vectors."""
