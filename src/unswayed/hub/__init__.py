"""What goes to the Hugging Face Hub, as local files; nothing here sends anything."""
