"""Figures and the HTML page. Summaries come as tables, figures draw them, the page shows what was drawn."""
