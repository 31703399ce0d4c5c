"""Items, personas, conversations, histories and questions: banks and their readers; no model."""
