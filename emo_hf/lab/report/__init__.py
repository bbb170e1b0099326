"""Reports and model cards in words:

    comparison_text, comparison_report  the report of a comparison: its text, and its files
    templating                          from templates to Markdown, from Markdown to HTML
    card_data, card_text, card          the model card of an arm: the facts, the words, the metadata
    formulas                            the formulas of the registry in words
    optimizer_page                      one optimizer in Markdown

The words of longer texts are in `templates`. The numbers come from `analysis`.
"""
