"""Images: where they come from (servers, recipes, uploads), how they are kept, and how they are handed out."""
