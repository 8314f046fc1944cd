"""Result cards: which models the rules pick, and a card as text, Markdown and figure."""
