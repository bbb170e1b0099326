"""Comparisons: recipes, the tasks they train, the runs they start, and the tables they end in.

What is asked:

    strict      the words and numbers of a recipe
    arms        optimizer settings
    optimizers  those of other packages, by name
    task        what is learned, and how large model and training are
    rules       what decides a claim
    spec        what a recipe may say; a Recipe gives one Cell per arm and seed
    consistency what is wrong with a recipe whose parts are right each for itself
    load        a YAML file -> Recipe, checked in full before anything starts
    sweep       a recipe for the agents of W&B

What is run:

    needs       what the runs need, looked for before the first one
    runner      runs the children, several at once, skips what is finished, moves aside what is broken
    processes   the processes of a run: how they start, and why they ended
    warm        what the server imports that runs are forked from
    child       trains one Cell in a process of its own
    train       a Cell -> its summary
    sources     where examples come from: shipped with the package, a local folder, the hub
    tasks       a Cell -> model, tokenizer, data sets, metric
    metrics     accuracy and perplexity as `evaluate` has them
    arguments   a Cell -> the arguments of its Trainer
    trainer     the Trainer of an arm
    callbacks   what a run writes down while it trains
    replay      the step sizes of an earlier run
    handover    a training cut in two
    checkpoints lets a broken run go on
    measures    the numbers of a run, from what it has written
    live        what is shown of runs under way
    functions   the paths of optimizers over two test functions

What comes of it:

    results     result files -> the table of a comparison
    comparison  a comparison as it lies in files
    verdicts    the values of the runs -> the verdict of a rule
    comparison_text, comparison_report    its report in words, and as files
    blocks      a text as Markdown and HTML
    evidence    every claim and its verdict on one page
    histories   what runs logged -> small tables of curves, results and trajectories
    curves      what the laws answer to the scalar and to the loss
    figures     pictures of all of these; needs matplotlib
    card_data, card_text, card    the model card of an arm: what is known, what it says, and its metadata
    laws        the laws of the catalog in words
    pages       the documentation page of every optimizer
    make_sentences    how the sentences were made that are shipped

Nothing here prints: `emo_hf.cli` shows what these return.
"""
