"""Reports and model cards in words.

    comparison_text, comparison_report  the report of a comparison: its words, and its files
    blocks                              a text as Markdown and HTML
    card_data, card_text, card          the model card of an arm: the facts, the words, the metadata
    formulas                            the formulas of the registry in words
    optimizer_page                      one optimizer in Markdown

All words about results are here; the numbers come from `analysis`.
"""
