"""What goes to the Hugging Face Hub, as local files; only `push` sends anything."""
