"""OpenAI's API: requests read and refused by name, answers and stream events in its forms. No answer policy here."""
