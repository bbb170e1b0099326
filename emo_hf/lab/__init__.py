"""Comparisons: recipes, the tasks they train, the runs they start, and the tables they end in.

    recipe    what is asked
    sources   where examples come from
    tasks     model, tokenizer, data sets and metric of a task
    run       what trains
    analysis  what finished runs say
    figures   pictures; needs matplotlib
    report    reports and model cards

Each room imports only from those above it. Nothing here prints: `emo_hf.cli` shows what these return.
"""
